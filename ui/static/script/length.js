// Holds back a message that is longer than the chat takes: says so, and keeps the text.
(() => {
  "use strict";

  const fits = (box) => {
    const limit = Number(box.closest("[data-limit]")?.dataset.limit);
    const length = box.value.length;
    const short = !limit || length <= limit;
    let note = document.getElementById("too-long");
    if (!note && !short) {
      note = document.createElement("div");
      note.id = "too-long";
      note.setAttribute("role", "alert");
      box.closest(".composer").before(note);
    }
    const number = (count) => count.toLocaleString("en");
    const text = short
      ? ""
      : `This message has ${number(length)} characters. At most ${number(limit)} can be sent: shorten it.`;
    if (note) note.hidden = short;
    if (note && note.textContent !== text) note.textContent = text;
    return short;
  };
  const refuse = (event) => {
    event.preventDefault();
    event.stopPropagation();
  };
  const composer = () => document.querySelector(".composer textarea");
  document.addEventListener("input", (event) => {
    if (event.target === composer()) fits(event.target);
  }, true);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.target !== composer()) return;
    if (!fits(event.target)) refuse(event);
  }, true);
  document.addEventListener("click", (event) => {
    const send = event.target instanceof Element && event.target.closest(".button-main");
    if (send && composer() && !fits(composer())) refuse(event);
  }, true);
})();
