"""The keys of a review's page, as the browser handles them. Buttons send what their keys would.

Each message names the item that the page shows. A key that was pressed twice, or before the next item came,
is then about an item that the server has left, and is ignored there: nobody answers what they have not seen.
"""

from __future__ import annotations

EVENT = "review-key"
KEYS = """
if (!window.tunewheelReview) {
  window.tunewheelReview = true;
  const text = () => document.querySelector('[data-text] textarea, textarea[data-text]');
  const send = key => {
    const shown = document.querySelector('[data-number]');
    if (!shown) return;
    emitEvent('review-key', {number: Number(shown.dataset.number), key, text: text()?.value ?? ''});
  };
  document.addEventListener('keydown', event => {
    if (event.repeat || event.isComposing || event.altKey || event.metaKey) return;
    if (event.target.closest('textarea, input')) {
      if (event.key === 'Escape' || (event.key === 'Enter' && event.ctrlKey)) {
        event.preventDefault();
        event.target.blur();
      }
      return;
    }
    if (event.ctrlKey) return;
    if (event.target.closest('button, a') && [' ', 'Enter'].includes(event.key)) return;
    if (event.key === 'c' && text()) {
      event.preventDefault();
      text().focus();
      return;
    }
    if (!document.querySelector(`[data-keys~="${CSS.escape(event.key)}"]`)) return;
    event.preventDefault();
    send(event.key);
  });
  document.addEventListener('click', event => {
    const button = event.target.closest('[data-key]');
    if (button) send(button.dataset.key);
  });
}
"""
"""``data-number`` stands on what is shown, ``data-keys`` beside it lists the keys that it takes,
``data-text`` marks the field whose text goes along, ``data-key`` a button."""
