from changed_params import REAL

from pipeline.params import Params


def test_every_section_and_every_param_is_described():
    undescribed = [
        f"{name}.{field}"
        for name, section in Params.model_fields.items()
        for field, info in section.annotation.model_fields.items()
        if not info.description
    ]
    assert undescribed == []
    assert all(section.annotation.__doc__ for section in Params.model_fields.values())


def test_the_code_holds_no_second_copy_of_a_value():
    sections = [Params, *(section.annotation for section in Params.model_fields.values())]
    assert [
        field for section in sections for field, info in section.model_fields.items() if not info.is_required()
    ] == []


def test_params_stand_in_the_order_in_which_the_code_names_them():
    for name, section in Params.model_fields.items():
        assert list(REAL[name]) == list(section.annotation.model_fields)
    assert list(REAL) == list(Params.model_fields)
