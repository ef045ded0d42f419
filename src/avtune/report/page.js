"use strict";
(() => {
  const clock = (seconds) => {
    const tenths = Math.round(seconds * 10), whole = Math.floor(tenths / 10), tenth = tenths % 10;
    const two = (n) => String(n).padStart(2, "0");
    const h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60, s = whole % 60;
    return (h ? h + ":" + two(m) : m) + ":" + two(s) + (tenth ? "." + tenth : "");
  };
  const percent = (mille) => (mille / 10).toFixed(1) + "%";
  const element = (tag, text, kind) => {
    const made = document.createElement(tag);
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const tip = element("div", "", "tip");
  tip.hidden = true;
  document.body.append(tip);

  // A blob plays and seeks in every browser; some refuse long data addresses in a player.
  const intoBlob = (player) => {
    const match = /^data:([^;,]+);base64,/.exec(player.getAttribute("src"));
    if (!match) return;
    const text = atob(player.getAttribute("src").slice(match[0].length));
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    player.src = URL.createObjectURL(new Blob([bytes], { type: match[1] }));
  };

  // A player without a timeline begins at the first time that stands beside it.
  const beginAt = (player, buttons) => {
    buttons.forEach((button) => button.addEventListener("click", () => {
      player.currentTime = Number(button.dataset.time);
      player.play();
    }));
    if (!buttons.length) return;
    player.addEventListener("loadedmetadata", () => {
      player.currentTime = Number(buttons[0].dataset.time);
    }, { once: true });
  };

  const describe = (target, data, t, large) => {
    const wrong = data.true && data.true[t] !== data.predicted[t];
    const time = clock(t * data.step) + " – " + clock((t + 1) * data.step);
    target.replaceChildren(
      element("small", time),
      element(large ? "b" : "strong", data.labels[data.predicted[t]]),
      document.createTextNode(data.certainty ? " " + percent(data.certainty[t]) : ""));
    if (wrong) target.append(element("div", "wrong: it is " + data.labels[data.true[t]], "bad"));
    const others = (data.best ? data.best[t] : []).map((k, i) => [k, data.bestShares[t][i]]).filter(([k]) => k !== data.predicted[t]);
    if (others.length) {
      target.append(element("small", "then " + others.map(([k, p]) => data.labels[k] + " " + percent(p)).join(", ")));
    }
  };

  const steps = [.1, .2, .5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400];

  const start = (card) => {
    const timeline = card.querySelector(".timeline");
    const player = card.querySelector("video, audio");
    if (player) intoBlob(player);
    if (!timeline) {
      if (player) beginAt(player, card.querySelectorAll(".seek"));
      return;
    }
    const data = JSON.parse(timeline.querySelector(".data").textContent);
    const scroll = timeline.querySelector(".scroll"), track = timeline.querySelector(".track");
    const ruler = timeline.querySelector(".ruler"), head = timeline.querySelector(".playhead");
    const readout = card.querySelector(".readout"), values = timeline.querySelectorAll(".name.class b");
    const count = data.predicted.length, end = count * data.step;
    let now = 0, shownSegment = -1, zoom = 1;

    const segmentAt = (time) => Math.min(count - 1, Math.max(0, Math.floor(time / data.step + 1e-6)));

    const show = (time, follow) => {
      now = Math.min(end, Math.max(0, time));
      head.style.left = 100 * now / end + "%";
      if (follow && zoom > 1) {
        const x = now / end * track.clientWidth;
        if (x < scroll.scrollLeft || x > scroll.scrollLeft + scroll.clientWidth * .95) {
          scroll.scrollLeft = x - scroll.clientWidth * .1;
        }
      }
      const t = segmentAt(now);
      if (t === shownSegment) return;
      shownSegment = t;
      describe(readout, data, t, true);
      track.setAttribute("aria-valuenow", now.toFixed(1));
      track.setAttribute("aria-valuetext",
        clock(now) + ", " + data.labels[data.predicted[t]] + (data.certainty ? ", " + percent(data.certainty[t]) : ""));
      values.forEach((value, row) => { value.textContent = Math.round(data.rows[row][t] / 10) + "%"; });
    };

    const seek = (time) => {
      // A hair inside the segment, so that rounding in the container never shows the frame before it.
      const inside = Math.min(Math.max(0, end - 1e-3), Math.max(0, time) + 1e-3);
      if (player) player.currentTime = Number.isFinite(player.duration) ? Math.min(inside, player.duration) : inside;
      show(inside, true);
    };

    const timeUnder = (event) => {
      const box = track.getBoundingClientRect();
      return Math.min(Math.max(0, (event.clientX - box.left) / box.width), 1) * end;
    };

    track.addEventListener("click", (event) => seek(segmentAt(timeUnder(event)) * data.step));
    track.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "mouse") return;
      describe(tip, data, segmentAt(timeUnder(event)), false);
      tip.hidden = false;
      const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
      const below = event.clientY + 18 + tip.offsetHeight < innerHeight;
      tip.style.left = Math.max(8, left) + "px";
      tip.style.top = (below ? event.clientY + 18 : event.clientY - tip.offsetHeight - 12) + "px";
    });
    track.addEventListener("pointerleave", () => { tip.hidden = true; });
    track.addEventListener("keydown", (event) => {
      const t = segmentAt(now);
      const to = { ArrowRight: t + 1, ArrowUp: t + 1, ArrowLeft: t - 1, ArrowDown: t - 1,
                   PageUp: t + 10, PageDown: t - 10, Home: 0, End: count - 1 }[event.key];
      if (to !== undefined) seek(Math.min(count - 1, Math.max(0, to)) * data.step);
      else if ((event.key === " " || event.key === "Enter") && player) player.paused ? player.play() : player.pause();
      else return;
      event.preventDefault();
    });
    card.querySelectorAll(".seek").forEach((button) => button.addEventListener("click", () => {
      seek(Number(button.dataset.time));
      if (player) player.play();
    }));

    const drawRuler = () => {
      const room = track.clientWidth / (end >= 3600 ? 76 : 58);
      const step = steps.find((s) => end / s <= room) || end;
      ruler.replaceChildren();
      for (let time = 0; time < end - step * .2 && ruler.childElementCount < 4000; time += step) {
        const tick = element("span", clock(time));
        tick.style.left = 100 * time / end + "%";
        ruler.append(tick);
      }
    };
    const setZoom = (to) => {
      const limit = Math.max(1, count * 28 / scroll.clientWidth);
      const middle = now / end;
      zoom = Math.min(limit, Math.max(1, to));
      track.style.width = 100 * zoom + "%";
      scroll.scrollLeft = middle * track.clientWidth - scroll.clientWidth / 2;
      drawRuler();
      const buttons = timeline.querySelector(".zoom");
      buttons.hidden = limit <= 1.5;
      buttons.querySelector("[data-zoom=out]").disabled = zoom <= 1;
      buttons.querySelector("[data-zoom=in]").disabled = zoom >= limit;
    };
    timeline.querySelectorAll("[data-zoom]").forEach((button) =>
      button.addEventListener("click", () => setZoom(zoom * (button.dataset.zoom === "in" ? 2.5 : .4))));
    new ResizeObserver(() => setZoom(zoom)).observe(scroll);

    if (player) {
      const follow = () => {
        show(player.currentTime, !player.paused);
        if (!player.paused && !player.ended) requestAnimationFrame(follow);
      };
      for (const name of ["play", "seeked", "timeupdate", "loadedmetadata"]) player.addEventListener(name, follow);
    }
    readout.hidden = false;
    setZoom(1);
    show(0, false);
  };
  document.querySelectorAll(".clip").forEach(start);
})();
