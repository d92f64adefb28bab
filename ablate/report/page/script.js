
"use strict";
// Sorting, keys and tooltips, links into what is folded, unfolding for paper. Without it all the same is there to read.

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const written = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = { ascending: "descending", descending: "" }[head.getAttribute("aria-sort")] ?? "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      if (way) head.setAttribute("aria-sort", way);
      body.append(...(way ? sorted(written, column, head.dataset.kind !== "text", way === "ascending" ? 1 : -1) : written));
    });
  });
}

// What has no value comes last, whichever way; equal rows keep the order in which they were written.
function sorted(rows, column, numbers, sign) {
  const key = (row) => row.cells[column].dataset.key;
  const compare = numbers
    ? (a, b) => Number(a) - Number(b)
    : (a, b) => a.localeCompare(b, "en", { numeric: true });
  return [...rows].sort((a, b) => {
    const [one, other] = [key(a), key(b)];
    if (!one || !other) return !other - !one ? (one ? -1 : 1) : 0;
    return sign * compare(one, other);
  });
}

const tip = document.getElementById("tip");
let told = null;

function tell(point) {
  const box = point.getBoundingClientRect();
  told = point;
  tip.textContent = point.getAttribute("aria-label");
  tip.hidden = false;
  const left = box.left + box.width / 2 - tip.offsetWidth / 2;
  tip.style.left = `${Math.max(4, Math.min(left, document.documentElement.clientWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${box.top > tip.offsetHeight + 8 ? box.top - tip.offsetHeight - 6 : box.bottom + 6}px`;
}

function hush() {
  tip.hidden = true;
  told = null;
}

// One stop of the Tab key a figure: from there the arrow keys lead from point to point.
for (const picture of document.querySelectorAll(".picture svg")) {
  const points = [...picture.querySelectorAll(".point")];
  points.forEach((point, index) => {
    point.querySelector("title").remove();
    point.setAttribute("tabindex", index ? "-1" : "0");
    point.addEventListener("mouseenter", () => tell(point));
    point.addEventListener("mouseleave", hush);
    point.addEventListener("focus", () => tell(point));
    point.addEventListener("blur", hush);
    point.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const ends = { Home: 0, End: points.length - 1 };
      const to = step ? (index + step + points.length) % points.length : ends[event.key];
      if (to === undefined) return;
      event.preventDefault();
      point.setAttribute("tabindex", "-1");
      points[to].setAttribute("tabindex", "0");
      points[to].focus();
    });
  });
}
addEventListener("keydown", (event) => {
  if (event.key === "Escape") hush();
});
// It stays with its point, in whichever box is scrolled; of a point that is out of sight it says nothing.
function follow() {
  if (!told) return;
  tell(told);
  const frame = told.closest(".scroll").getBoundingClientRect();
  const box = told.getBoundingClientRect();
  tip.hidden = box.right < frame.left || box.left > frame.right || box.bottom < 0 || box.top > innerHeight;
}
addEventListener("scroll", follow, { passive: true, capture: true });
addEventListener("resize", follow);

// A box is a stop of the Tab key where there is more in it than fits, and only there.
const sized = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth || target.scrollHeight > target.clientHeight) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const box of document.querySelectorAll(".scroll")) sized.observe(box);

const folds = [...document.querySelectorAll("details.variant")];
document.getElementById("folding").hidden = !folds.length;
for (const [id, open] of [["expand", true], ["collapse", false]]) {
  document.getElementById(id).addEventListener("click", () => {
    for (const each of folds) each.open = open;
  });
}

function unfold() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) target.open = true;
}
addEventListener("hashchange", unfold);
unfold();

// On paper nothing is folded.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const each of opened) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of opened) each.open = false;
});
