// Makes quicker what works without: the table of nodes is filtered while one types and is turned
// without loading the whole page, and what is shown is fetched anew after each round. Whatever goes
// wrong here, the form and the links still do their work. Asks this server only.
(() => {
  "use strict";
  const TYPING_MS = 250;
  let asked = 0;

  // Puts the parts named `data-part` of a freshly fetched page in the place of those on the screen.
  const show = async (address, parts) => {
    const turn = ++asked;
    const answer = await fetch(address, { headers: { accept: "text/html" } });
    if (!answer.ok || turn !== asked) return answer.ok;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (turn !== asked) return true;
    for (const part of parts) {
      const fresh = page.querySelector(`[data-part=${part}]`);
      const shown = document.querySelector(`[data-part=${part}]`);
      if (fresh && shown) shown.replaceWith(document.adoptNode(fresh));
    }
    return true;
  };

  const form = document.querySelector("form[data-filter]");
  if (form) {
    const address = () => {
      const wanted = new URLSearchParams();
      for (const [name, value] of new FormData(form)) if (value) wanted.set(name, value);
      return `?${wanted}`;
    };
    let timer = 0;
    const filter = () => {
      const wanted = address();
      show(wanted, ["nodes"]).then((ok) => {
        if (ok) history.replaceState(null, "", wanted);
      }, () => {});
    };
    form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(filter, TYPING_MS);
    });
    document.addEventListener("click", (click) => {
      const link = click.target.closest("a[data-turn]");
      if (!link || click.ctrlKey || click.metaKey || click.shiftKey || click.button) return;
      click.preventDefault();
      show(link.href, ["nodes"]).then((ok) => {
        if (!ok) return location.assign(link.href);
        const sort = new URL(link.href).searchParams.get("sort");
        form.elements.sort.value = sort || "id";
        history.pushState(null, "", link.href);
        document.getElementById("nodes").scrollIntoView();
      }, () => location.assign(link.href));
    });
    addEventListener("popstate", () => location.reload());
  }

  const every = Number(document.body.dataset.everyS) * 1000;
  if (every > 0) {
    setInterval(() => {
      // Nothing changes under the eyes of whoever marks a text, or under the focus.
      if (document.visibilityState !== "visible" || !document.getSelection().isCollapsed) return;
      const held = document.activeElement && document.activeElement.closest("[data-part]");
      const free = ["live", "nodes"].filter((part) => !held || held.dataset.part !== part);
      show(location.href, free).catch(() => {});
    }, every);
  }
})();
