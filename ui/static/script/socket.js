// Watches over the page's socket from the moment that NiceGUI makes it.
(() => {
  "use strict";

  const LARGEST = 400000; // characters: a longer event holds a text that the server does not take
  const RETRY_MS = 30000;
  const guard = (socket) => {
    const emit = socket.emit;
    socket.emit = function (name, content, ...more) {
      const values = Array.isArray(content?.args) ? content.args : [];
      const size = values.reduce((sum, value) => sum + (value?.length ?? 0), 0);
      return size > LARGEST ? this : emit.call(this, name, content, ...more);
    };
    socket.on("connect_error", (error) => {
      if (error.message !== "This page belongs to another session") return;
      // Of two pages opened at once, before any cookie, one has the other's cookie: load it again.
      const last = Number(sessionStorage.pibloomReloaded ?? 0);
      if (Date.now() - last > RETRY_MS) {
        sessionStorage.pibloomReloaded = Date.now();
        window.location.reload();
        return;
      }
      const popup = document.getElementById("popup");
      if (!popup) return;
      popup.ariaHidden = "false";
      popup.textContent =
        "This browser sends no cookies to this page. Allow them for this site, then load it again.";
    });
  };
  let socket;
  Object.defineProperty(window, "socket", {
    configurable: true,
    get: () => socket,
    set: (made) => {
      socket = made;
      guard(made);
    },
  });
})();
