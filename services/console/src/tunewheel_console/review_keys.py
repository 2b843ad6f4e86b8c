"""The browser's script for the keys of a review's page. A button sends the same message as its key.

Each message names the item that the page shows. If a key is pressed twice, or before the next item is shown,
the message names an item that the server has left. The server ignores it, so that nobody answers an unseen
item.
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
"""Attributes that the script uses: ``data-number`` is the number of the shown item, and ``data-keys`` lists
its keys. ``data-text`` marks the field whose text is sent with each message. ``data-key`` is a button's
key."""
