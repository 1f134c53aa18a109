// Draw the molecule of the chosen row.
"use strict";
(() => {
  const molecules = JSON.parse(document.getElementById("molecules").textContent);
  const buttons = [...document.querySelectorAll("button[data-molecule]")];
  const caption = document.getElementById("shown");
  let viewer = null;
  try {
    viewer = $3Dmol.createViewer("viewer", { backgroundAlpha: 0, disableFog: true });
  } catch (error) {
    viewer = null;
  }

  function show(button) {
    for (const other of buttons) other.closest("tr").classList.toggle("current", other === button);
    const molecule = molecules[button.dataset.molecule];
    caption.textContent = button.dataset.caption;
    if (!viewer) {
      caption.textContent += ". This browser has no WebGL, which the picture needs.";
      return;
    }
    viewer.removeAllModels();
    viewer.removeAllShapes();
    viewer.addModel(molecule.xyz, "xyz");
    viewer.setStyle({}, { stick: { radius: 0.12 }, sphere: { scale: 0.26 } });
    for (const [x, y, z, dx, dy, dz] of molecule.arrows) {
      viewer.addArrow({
        start: { x, y, z }, end: { x: x + dx, y: y + dy, z: z + dz }, radius: 0.07, color: "#e06c00", mid: 0.7,
      });
    }
    viewer.zoomTo();
    viewer.zoom(0.9);
    viewer.render();
  }

  for (const button of buttons) button.addEventListener("click", () => show(button));
  if (buttons.length) show(buttons[0]);
})();
