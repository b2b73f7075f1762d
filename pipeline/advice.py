"""Which param to try: of several that might help, those whose change the other params allow."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.params import PARAMS_FILE, Params, check_params


@dataclass(frozen=True)
class Remedy:
    """Something to try, in `words`.

    `param` is the dotted name of what it changes (of more images, none), and `change` such a change of its value, which
    gives the value back where there is nothing to be changed. Under `idle` objectives the param says nothing.
    """

    words: str
    param: str | None = None
    change: Callable[[Any], Any] = lambda value: value
    idle: tuple[str, ...] = ()

    def changed(self, params: Params) -> Params | None:
        """The params with this change; None where it changes nothing or they do not allow it."""
        if self.param is None or params.train.objective in self.idle:
            return None
        content = params.model_dump(mode="json")
        section, name = self.param.split(".")
        before = content[section][name]
        content[section][name] = after = self.change(before)
        try:
            return None if after == before else check_params(content, PARAMS_FILE)
        except UserError:
            return None


def advise(remedies: Iterable[Remedy], params: Params) -> str:
    """The words of those that are open to a user of these params, as a list in a sentence."""
    *rest, last = [remedy.words for remedy in remedies if remedy.param is None or remedy.changed(params)] or [""]
    return f"{', '.join(rest)} or {last}" if rest else last
