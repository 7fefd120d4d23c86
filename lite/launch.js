/* The button that opens this page in JupyterLite, which `make lite` has built. */
document.addEventListener("DOMContentLoaded", () => {
  const notebook = document.querySelector('meta[name="mlfs-notebook"]')?.content;
  const bar = document.querySelector(".article-header-buttons");
  if (!notebook || !bar || location.protocol === "file:") return;
  const root = document.documentElement.dataset.content_root ?? "./";
  const link = document.createElement("a");
  link.className = "btn btn-sm";
  link.href = `${root}lite/lab/index.html?path=${encodeURIComponent(notebook)}`;
  link.target = "_blank";
  link.rel = "noopener";
  link.title = "Run this page in the browser; nothing is installed";
  link.innerHTML = '<span aria-hidden="true">▶</span> <span class="d-none d-md-inline">Run in the browser</span>';
  bar.prepend(link);
});
