"""p(x|z): what the decoder's output means. Each is normalised, and knows its mean and how to draw from it."""
