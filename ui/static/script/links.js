// Opens the links of a reply in another tab.
(() => {
  "use strict";

  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest(".prose a[href]") : null;
    if (!link) return;
    event.preventDefault(); // leaving the page would end the running reply
    window.open(link.href, "_blank", "noopener,noreferrer");
  });
})();
