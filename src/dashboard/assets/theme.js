// Runs before the first paint, so that the page never flashes in the other theme.
(function () {
  'use strict';
  const key = 'genwatch-theme';
  const dark = window.matchMedia('(prefers-color-scheme: dark)');

  function stored() {
    try { return localStorage.getItem(key); } catch { return null; }
  }

  function apply() {
    document.documentElement.dataset.theme = stored() || (dark.matches ? 'dark' : 'light');
    window.dispatchEvent(new Event('genwatch-theme'));
  }

  window.genwatchTheme = {
    current: () => document.documentElement.dataset.theme,
    toggle() {
      const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
      try { localStorage.setItem(key, next); } catch { /* the choice lasts until the page closes */ }
      document.documentElement.dataset.theme = next;
      window.dispatchEvent(new Event('genwatch-theme'));
    },
  };

  dark.addEventListener('change', apply);
  apply();

  document.addEventListener('DOMContentLoaded', () => {
    const error = document.querySelector('[data-login-error]');
    if (error && new URLSearchParams(location.search).has('failed')) error.hidden = false;
  });
})();
