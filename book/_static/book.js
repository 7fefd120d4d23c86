/* What the theme leaves undone for readers who use a keyboard or a screen reader. */

function name(node, role, label) {
  node.setAttribute("role", role);
  node.setAttribute("aria-label", label);
}

/* A box that scrolls must be reachable by keyboard; one that does not, should not be. */
function reachScrollers() {
  const boxes = [
    ["div.math", "Equation"],
    ["div.highlight > pre", "Code"],
    ["div.cell_output .output", "Output"],
    [".pst-scrollable-table-container", "Table"],
  ];
  for (const [selector, label] of boxes) {
    for (const box of document.querySelectorAll(`.bd-article ${selector}`)) {
      if (box.scrollWidth > box.clientWidth + 1) {
        box.tabIndex = 0;
        name(box, "group", label);
      } else if (box.getAttribute("role") === "group") {
        box.removeAttribute("tabindex");
        box.removeAttribute("role");
        box.removeAttribute("aria-label");
      }
    }
  }
}

document.addEventListener("DOMContentLoaded", () => {
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
  window.addEventListener("resize", reachScrollers);
});
