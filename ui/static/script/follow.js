// Keeps the newest words in view, unless the reader has scrolled up.
(() => {
  "use strict";

  let following = true;
  const list = () => document.querySelector(".scroll");
  const distance = (box) => box.scrollHeight - box.scrollTop - box.clientHeight;
  const toEnd = (smooth) => {
    const box = list();
    if (!box) return;
    following = true;
    box.scrollTo({ top: box.scrollHeight, behavior: smooth ? "smooth" : "instant" });
  };
  document.addEventListener("click", (event) => {
    if (event.target instanceof Element && event.target.closest(".jump")) toEnd(true);
  });
  const watch = () => {
    const box = list();
    const turns = box?.querySelector(".turns");
    if (!turns) return false;
    const button = document.querySelector(".jump");
    let turnCount = 0;
    const mark = () => button?.classList.toggle("jump-shown", turnCount > 0 && distance(box) > 160);
    let last = 0;
    box.addEventListener("scroll", () => {
      if (box.scrollTop < last - 2) following = false;
      if (distance(box) < 40) following = true;
      last = box.scrollTop;
      mark();
    }, { passive: true });
    const keep = () => {
      const now = turns.querySelectorAll(".turn").length;
      if (now > turnCount) following = true; // a new question: show it
      if (now === 0 && turnCount > 0) box.scrollTo({ top: 0, behavior: "instant" }); // a new chat: show its greeting
      turnCount = now;
      if (turnCount > 0 && following) toEnd(false);
      mark();
    };
    new MutationObserver(keep).observe(turns, { childList: true, subtree: true, characterData: true });
    new ResizeObserver(keep).observe(box);
    return true;
  };
  const wait = new MutationObserver(() => {
    if (watch()) wait.disconnect();
  });
  document.addEventListener("DOMContentLoaded", () => {
    if (!watch()) wait.observe(document.body, { childList: true, subtree: true });
  });
})();
