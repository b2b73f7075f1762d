// Pixels and error maps onto canvases.

// Eleven points of viridis: its lightness rises steadily, so the order shows in grey and to colour-blind eyes too.
const VIRIDIS = [
  [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140],
  [34, 168, 132], [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
];

/** Pixels, uint8 [H * W * C] with one or three channels. */
export function paint(canvas, pixels, [height, width, channels]) {
  fill(canvas, height, width, (i) => {
    const [red, green, blue] = pixels.subarray(i * channels, (i + 1) * channels);
    return [red, green ?? red, blue ?? red];
  });
}

/** Values [H * W] in colours from the least to the most of them; returns these two. */
export function paintMap(canvas, values, [height, width]) {
  const finite = values.filter(Number.isFinite);
  const least = finite.reduce((a, b) => Math.min(a, b), Infinity);
  const most = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  fill(canvas, height, width, (i) => colour((values[i] - least) / (most - least || 1)));
  return [least, most];
}

/** The colours of `paintMap` from left to right. */
export function paintLegend(canvas) {
  fill(canvas, 1, 128, (i) => colour(i / 127));
}

function fill(canvas, height, width, colourOf) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([...colourOf(i), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function colour(share) {
  const at = Math.min(1, Math.max(0, Number.isNaN(share) ? 1 : share)) * (VIRIDIS.length - 1);
  const below = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[below].map((value, c) => value + (at - below) * (VIRIDIS[below + 1][c] - value));
}
