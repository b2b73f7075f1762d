"""Faster copies of the sampler and the decoder, in smaller arithmetic: made, measured, and written where they pay."""
