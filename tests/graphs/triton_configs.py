"""Prints the configurations of a Triton model repository as JSON, read with Triton's own protobuf definition."""

import json
import sys
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

configs = {}
for file in Path(sys.argv[1]).glob("*/config.pbtxt"):
    config = text_format.Parse(file.read_text(), ModelConfig())  # refuses a field that Triton does not know
    configs[file.parent.name] = json_format.MessageToDict(config, preserving_proto_field_name=True)
print(json.dumps(configs))
