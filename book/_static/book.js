/* What the theme leaves undone for readers who use a keyboard or a screen reader. */

function name(node, role, label) {
  node.setAttribute("role", role);
  node.setAttribute("aria-label", label);
}

/* A box that scrolls must be reachable by keyboard; one that does not, should not be. */
const BOXES = {
  "div.math": "Equation",
  "div.highlight > pre": "Code",
  "div.cell_output .output": "Output",
  ".pst-scrollable-table-container": "Table",
};

function reach(box, label) {
  if (box.scrollWidth > box.clientWidth + 1) {
    box.tabIndex = 0;
    name(box, "group", label);
  } else if (box.getAttribute("role") === "group") {
    box.removeAttribute("tabindex");
    box.removeAttribute("role");
    box.removeAttribute("aria-label");
  }
}

/* Each box is looked at now and whenever its size changes: a window, a fold, a sidebar. */
function reachScrollers() {
  for (const [selector, label] of Object.entries(BOXES)) {
    const watch = new ResizeObserver((seen) => seen.forEach(({ target }) => reach(target, label)));
    for (const box of document.querySelectorAll(`.bd-article ${selector}`)) {
      reach(box, label);
      watch.observe(box);
    }
  }
}

/* What the theme's buttons do; the policy allows no script in an attribute. */
const DEEDS = {
  "toggleFullScreen()": () => window.toggleFullScreen(),
  "window.print()": () => window.print(),
};

document.addEventListener("DOMContentLoaded", () => {
  document
    .querySelectorAll("[data-onclick]")
    .forEach((node) => node.addEventListener("click", DEEDS[node.dataset.onclick]));
  // The visible words ("Search Ctrl+K", "Show code cell source") must be in the name.
  document
    .querySelectorAll(".search-button-field[aria-label], details.hide > summary[aria-label]")
    .forEach((node) => node.removeAttribute("aria-label"));
  document.querySelectorAll("nav li.has-children > details > summary").forEach((node) => {
    const chapter = node.closest("li").querySelector("a").textContent.trim();
    node.setAttribute("aria-label", `More pages of ${chapter}`);
  });
  // Roles that ARIA has given up; the words say as much.
  document
    .querySelectorAll(".citation-list, .citation-list [role]")
    .forEach((node) => node.removeAttribute("role"));
  const start = document.querySelector(".sidebar-primary-items__start");
  if (start) name(start, "region", "Book");
});

window.addEventListener("load", () => {
  // Font Awesome gives the icons titles ("Light") that clash with the button's name.
  setTimeout(() => {
    document.querySelectorAll(".theme-switch-button svg").forEach((svg) => {
      svg.querySelector("title")?.remove();
      svg.removeAttribute("aria-labelledby");
      svg.setAttribute("aria-hidden", "true");
    });
  }, 0);
  const ready = window.MathJax?.startup?.promise ?? Promise.resolve();
  ready.then(reachScrollers);
});
