/* The network that adds digits, run by onnxruntime-web: every file comes from where this one lies. */
const here = (name) => new URL(name, import.meta.url).href;
const by_id = (id) => document.getElementById(id);
const LONGEST = 20;
const CELL = 18;

/* Blue is negative, orange positive, and white zero: told apart by the colour-blind. */
function colour(value, low) {
  const strength = Math.min(1, Math.abs(value));
  const [r, g, b] = value < 0 ? [0, 90, 181] : low < 0 ? [220, 110, 0] : [0, 90, 181];
  const mix = (c) => Math.round(255 + (c - 255) * strength);
  return `rgb(${mix(r)},${mix(g)},${mix(b)})`;
}

/* Draw an array (T, 1, width): a column for each digit, a row for each unit. */
function draw(id, tensor, digits, low, labels) {
  const [steps, , width] = tensor.dims;
  const canvas = by_id(id);
  const height = labels ? CELL : 8;
  const left = 22;
  canvas.width = left + LONGEST * CELL;
  canvas.height = width * height + 20;
  const pen = canvas.getContext("2d");
  const ink = getComputedStyle(canvas).color;
  pen.font = "12px sans-serif";
  for (let t = 0; t < steps; t++) {
    pen.fillStyle = ink;
    pen.fillText(digits[t], left + t * CELL + 5, 13);
    for (let k = 0; k < width; k++) {
      pen.fillStyle = colour(tensor.data[t * width + k], low);
      pen.fillRect(left + t * CELL, 20 + k * height, CELL - 1, height - 1);
    }
  }
  pen.fillStyle = ink;
  for (let k = 0; labels && k < width; k++) pen.fillText(k, 6, 20 + k * height + 13);
}

async function start() {
  let session, ort;
  try {
    ort = await import(here("../ort/ort.wasm.min.mjs"));
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = here("../ort/");
    session = await ort.InferenceSession.create(here("adder.onnx"));
  } catch (error) {
    by_id("demo-answer").textContent =
      "The network cannot run here: the site was built without onnxruntime-web (npm install --prefix docs), " +
      `or it is read as files and not from a server. ${error}`;
    return;
  }
  const field = by_id("demo-digits");

  async function ask() {
    const digits = field.value.replace(/[^0-9]/g, "").slice(0, LONGEST);
    if (!digits) {
      by_id("demo-answer").textContent = "Type some digits.";
      return;
    }
    const tokens = BigInt64Array.from(digits, BigInt);
    const found = await session.run({
      tokens: new ort.Tensor("int64", tokens, [digits.length, 1]),
      lengths: new ort.Tensor("int32", [digits.length], [1]),
    });
    const last = found.answers.data.slice(-10);
    const guess = last.indexOf(Math.max(...last));
    const sum = [...digits].reduce((a, b) => a + Number(b), 0) % 10;
    const verdict = guess === sum ? "right" : `wrong, it is ${sum}`;
    by_id("demo-answer").textContent =
      `${[...digits].join(" + ")} = ${guess} mod 10 (p = ${last[guess].toFixed(4)}; ${verdict})`;
    draw("demo-answers", found.answers, digits, 0, true);
    draw("demo-states", found.states, digits, -1, false);
    draw("demo-update", found.update, digits, 0, false);
    draw("demo-reset", found.reset, digits, 0, false);
    by_id("demo-numbers").textContent = JSON.stringify({
      digits,
      answers: Array.from(found.answers.data),
      states: Array.from(found.states.data),
    });
  }

  /* One run at a time; what was typed meanwhile is asked when it has ended. */
  let busy = false;
  let again = false;
  async function typed() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    do {
      again = false;
      await ask();
    } while (again);
    busy = false;
  }
  field.addEventListener("input", typed);
  const asked = new URLSearchParams(location.search).get("digits");
  if (asked !== null) field.value = asked;
  field.disabled = false;
  await typed();
}

start();
