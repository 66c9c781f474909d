// Values under the pointer: a vertical guide at the nearest step, and every line's mean there.
for (const figure of document.querySelectorAll("figure")) {
  const data = JSON.parse(figure.querySelector("script").textContent);
  const svg = figure.querySelector("svg"), guide = svg.querySelector(".guide"), tip = figure.querySelector(".tip");
  const hide = () => { guide.style.visibility = tip.style.visibility = "hidden"; };
  const near = (xs, x) => xs.reduce((best, value, i) => (Math.abs(value - x) < Math.abs(xs[best] - x) ? i : best), 0);
  const show = (event) => {
    const box = svg.getBoundingClientRect(), scale = data.width / box.width;
    const u = ((event.clientX - box.left) * scale - data.left) / (data.right - data.left);
    const x = data.low + Math.min(1, Math.max(0, u)) * (data.high - data.low);
    const step = data.lines.map((line) => line.x[near(line.x, x)]).reduce((a, b) => (Math.abs(a - x) <= Math.abs(b - x) ? a : b));
    const at = data.left + ((step - data.low) / (data.high - data.low)) * (data.right - data.left);
    guide.setAttribute("x1", at); guide.setAttribute("x2", at);
    tip.replaceChildren(Object.assign(document.createElement("div"), { textContent: `${data.unit} ${step}` }));
    for (const line of data.lines) {
      const row = document.createElement("div"), swatch = document.createElement("span");
      swatch.className = "swatch"; swatch.style.background = `var(--c${line.color})`;
      row.append(swatch, `${line.mean[near(line.x, step)]}  ${line.name}`);
      tip.append(row);
    }
    guide.style.visibility = tip.style.visibility = "visible";
    const left = at / scale + svg.offsetLeft + 12, most = figure.clientWidth - tip.offsetWidth - 4;
    tip.style.left = `${Math.max(4, left > most ? at / scale + svg.offsetLeft - tip.offsetWidth - 12 : left)}px`;
    tip.style.top = `${svg.offsetTop + 8}px`;
  };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}
