// Says to the server that Escape was pressed, or that the page is left.
(() => {
  "use strict";

  const notifyServer = (name) => {
    if (typeof emitEvent === "function" && window.did_handshake) emitEvent(name);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    if (document.querySelector(".q-dialog")) return; // there, Escape closes the dialog
    notifyServer("pibloom_stop");
  });
  window.addEventListener("pagehide", () => notifyServer("pibloom_leave"));
})();
