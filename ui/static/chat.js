// What only the browser can do: follow the newest words, copy, keep the input above a phone's
// keyboard, and tell the server about Escape and about leaving.
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

  const tell = (name) => {
    if (typeof emitEvent === "function" && window.did_handshake) emitEvent(name);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    if (document.querySelector(".q-dialog")) return; // there it closes the dialog
    tell("pibloom_stop");
  });
  window.addEventListener("pagehide", () => tell("pibloom_leave"));

  // What is longer than the chat takes is not sent; the page says so, and keeps the text.
  const fits = (box) => {
    const limit = Number(box.closest("[data-limit]")?.dataset.limit);
    const length = box.value.length;
    const good = !limit || length <= limit;
    let note = document.getElementById("too-long");
    if (!note && !good) {
      note = document.createElement("div");
      note.id = "too-long";
      note.setAttribute("role", "alert");
      box.closest(".composer").before(note);
    }
    const number = (count) => count.toLocaleString("en");
    const text = good
      ? ""
      : `This message has ${number(length)} characters. At most ${number(limit)} can be sent: shorten it.`;
    if (note) note.hidden = good;
    if (note && note.textContent !== text) note.textContent = text;
    return good;
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

  // The page's socket, as soon as there is one.
  const LARGEST = 400000; // an event beyond it holds a text beyond the limit above
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
      // Two pages that are opened at once for the first time get two cookies; one is enough.
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

  const write = async (text) => {
    if (navigator.clipboard && window.isSecureContext) {
      await navigator.clipboard.writeText(text);
      return;
    }
    // Plain http on a home network is not a secure context; the old way still works there.
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
    let good = true;
    try {
      await write(text);
    } catch {
      good = false;
    }
    const said = document.getElementById("said");
    if (said) said.textContent = good ? "Copied" : "The browser does not allow copying";
    const path = button.querySelector("path");
    const before = path ? path.getAttribute("d") : button.textContent;
    if (button.dataset.busy) return;
    button.dataset.busy = "1";
    if (path && good) path.setAttribute("d", CHECK);
    if (!path) button.textContent = good ? "Copied" : "Not allowed";
    setTimeout(() => {
      delete button.dataset.busy;
      if (path) path.setAttribute("d", before);
      else button.textContent = before;
    }, 1600);
  };
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const button = target?.closest("button");
    if (button?.dataset.copy !== undefined) copy(button, button.dataset.copy);
    else if (button?.classList.contains("code-copy"))
      copy(button, button.closest(".code").querySelector("pre").textContent);
    else if (button?.classList.contains("jump")) toEnd(true);
    const link = target?.closest(".prose a[href]");
    if (link) {
      event.preventDefault(); // leaving the page would end the chat's running reply
      window.open(link.href, "_blank", "noopener,noreferrer");
    }
  });

  // Follow the newest words, unless the reader has scrolled up.
  let following = true;
  const list = () => document.querySelector(".scroll");
  const distance = (box) => box.scrollHeight - box.scrollTop - box.clientHeight;
  const toEnd = (smooth) => {
    const box = list();
    if (!box) return;
    following = true;
    box.scrollTo({ top: box.scrollHeight, behavior: smooth ? "smooth" : "instant" });
  };
  const watch = () => {
    const box = list();
    const turns = box?.querySelector(".turns");
    if (!turns) return false;
    const button = document.querySelector(".jump");
    const mark = () => button?.classList.toggle("jump-shown", distance(box) > 160);
    let last = 0;
    box.addEventListener("scroll", () => {
      if (box.scrollTop < last - 2) following = false;
      if (distance(box) < 40) following = true;
      last = box.scrollTop;
      mark();
    }, { passive: true });
    let turnCount = 0;
    const keep = () => {
      const now = turns.querySelectorAll(".turn").length;
      if (now > turnCount) following = true; // a new question: show it
      turnCount = now;
      if (following) toEnd(false);
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
