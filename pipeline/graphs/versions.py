"""What the exported files ask of whoever opens them."""

OPSET = 18
IR_VERSION = 10
OLDEST_ONNXRUNTIME = "1.21"  # the first whose CPU provider multiplies uint64, as the noise generator does
