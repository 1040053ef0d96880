// The values at the step under the pointer.
for (const plot of document.querySelectorAll(".plot")) {
  const data = JSON.parse(plot.querySelector("script").textContent);
  const [mark, tip, picture] = [".mark", ".tip", "svg"].map((name) => plot.querySelector(name));
  const nearest = (points, step) => {
    let [low, high] = [0, points.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < step) low = middle + 1; else high = middle;
    }
    const before = points[Math.max(0, low - 1)];
    return step - before[0] < points[low][0] - step ? before : points[low];
  };
  const hide = () => { mark.style.display = tip.style.display = "none"; };
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect(), outer = plot.getBoundingClientRect();
    const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const step = data.from + part * (data.to - data.from);
    tip.replaceChildren();
    for (const line of data.lines) {
      const [at, value] = nearest(line.points, step);
      const row = document.createElement("div"), name = document.createElement("b");
      name.textContent = line.name;
      name.style.color = line.colour;
      row.append(name, ` ${value} at step ${at}`);
      tip.append(row);
    }
    mark.style.display = tip.style.display = "block";
    mark.style.left = `${box.left - outer.left + part * box.width}px`;
    const left = box.left - outer.left + part * box.width + 12;
    tip.style.left = `${Math.max(0, Math.min(left, outer.width - tip.offsetWidth))}px`;
  });
}
