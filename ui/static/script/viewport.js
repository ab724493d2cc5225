// Keeps the input above a phone's keyboard.
(() => {
  "use strict";

  const root = document.documentElement;
  const fit = () => {
    const view = window.visualViewport;
    if (!view || view.scale !== 1) return; // zoomed in by hand: leave the layout alone
    root.style.setProperty("--visible-height", `${Math.round(view.height)}px`);
    window.scrollTo(0, 0); // iOS scrolls the page to show the focused input
  };
  window.visualViewport?.addEventListener("resize", fit);
  fit();
})();
