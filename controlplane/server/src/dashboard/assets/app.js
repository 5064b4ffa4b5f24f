"use strict";
// Pages work without this file; it only makes them quicker to use.

// Lists: what is typed hides the rows that do not have it.
for (const field of document.querySelectorAll("[data-filter]")) {
  const rows = document.querySelectorAll(field.dataset.filter + " tbody tr");
  field.closest("[hidden]")?.removeAttribute("hidden");
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}

// A button beside what is to be copied.
for (const source of document.querySelectorAll("[data-copy]")) {
  if (!navigator.clipboard) break;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(source.textContent.trim());
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  source.after(button);
}

// What cannot be taken back is asked twice.
for (const button of document.querySelectorAll("[data-confirm]")) {
  button.addEventListener("click", (event) => {
    if (!confirm(button.dataset.confirm)) event.preventDefault();
  });
}

// A choice that is a whole form.
for (const choice of document.querySelectorAll("[data-submit]")) {
  choice.form.classList.add("at-once");
  choice.addEventListener("change", () => choice.form.submit());
}

// Lists that change by themselves are read again, unless somebody is in the middle of something.
for (const list of document.querySelectorAll("[data-refresh]")) {
  const seconds = Number(list.dataset.refresh);
  setInterval(async () => {
    if (document.hidden || list.contains(document.activeElement)) return;
    const answer = await fetch(location.href, { headers: { Accept: "text/html", "Zen-Refresh": "1" } }).catch(() => null);
    if (!answer || !answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.getElementById(list.id);
    if (next) list.replaceChildren(...next.childNodes);
  }, seconds * 1000);
}
