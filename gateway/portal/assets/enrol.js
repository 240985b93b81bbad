// Takes the one-time link's token from behind the # into the form, and out of the address. The pages
// work without it; then the link is pasted.
"use strict";
(() => {
  const field = document.getElementById("link");
  const token = window.location.hash.slice(1);
  if (!field || !token) return;
  field.value = token;
  window.history.replaceState(null, "", window.location.pathname);
  document.getElementById("by-hand").hidden = true;
  document.getElementById("by-link").hidden = false;
})();
