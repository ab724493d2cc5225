// Copies replies and blocks of code.
(() => {
  "use strict";

  const write = async (text) => {
    if (navigator.clipboard && window.isSecureContext) {
      await navigator.clipboard.writeText(text);
      return;
    }
    // Plain http on a home network is not a secure context; the old way works there too.
    const box = document.createElement("textarea");
    box.value = text;
    box.setAttribute("readonly", "");
    box.style.cssText = "position:fixed;opacity:0";
    document.body.append(box);
    box.select();
    const copied = document.execCommand("copy");
    box.remove();
    if (!copied) throw new Error("the browser refused");
  };

  const CHECK = "M5 12.5 10 17.5 19.5 7";

  const copy = async (button, text) => {
    let copied = true;
    try {
      await write(text);
    } catch {
      copied = false;
    }
    const said = document.getElementById("said");
    if (said) said.textContent = copied ? "Copied" : "The browser does not allow copying";
    const path = button.querySelector("path");
    const before = path ? path.getAttribute("d") : button.textContent;
    if (button.dataset.busy) return;
    button.dataset.busy = "1";
    if (path && copied) path.setAttribute("d", CHECK);
    if (!path) button.textContent = copied ? "Copied" : "Not allowed";
    setTimeout(() => {
      delete button.dataset.busy;
      if (path) path.setAttribute("d", before);
      else button.textContent = before;
    }, 1600);
  };

  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("button") : null;
    if (button?.dataset.copy !== undefined) copy(button, button.dataset.copy);
    else if (button?.classList.contains("code-copy"))
      copy(button, button.closest(".code").querySelector("pre").textContent);
  });
})();
