"""A set of images in; a reproducible variational auto-encoder and self-contained ONNX files out."""
