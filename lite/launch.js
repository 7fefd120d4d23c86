/* The button that opens this page in JupyterLite, which `make lite` has built. */
document.addEventListener("DOMContentLoaded", () => {
  const notebook = document.querySelector('meta[name="mlfs-notebook"]')?.content;
  const bar = document.querySelector(".article-header-buttons");
  if (!notebook || !bar || location.protocol === "file:") return;
  const root = document.documentElement.dataset.content_root ?? "./";
  const link = document.createElement("a");
  link.className = "btn btn-sm";
  // One notebook a window: it fits a phone, and is there again when the reader reloads.
  link.href = `${root}lite/notebooks/index.html?path=${encodeURIComponent(notebook)}`;
  link.target = "_blank";
  link.rel = "noopener";
  link.title = "Run this page in the browser; nothing is installed";
  link.innerHTML = '<span aria-hidden="true">▶</span> <span class="d-none d-md-inline">Run in the browser</span>';
  bar.prepend(link);
});
