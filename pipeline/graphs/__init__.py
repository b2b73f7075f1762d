"""torch modules to ONNX files, and the proof that the files compute what the modules do."""
