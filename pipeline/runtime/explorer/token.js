// The server's token: asked for once, kept for as long as the tab is open, and never part of a link.
const KEY = "vae-token";
let asking = null; // one form for all requests that wait for the token

/** The token of this tab, or null. */
export const savedToken = () => sessionStorage.getItem(KEY);

export const forgetToken = () => sessionStorage.removeItem(KEY);

/** Show the form and wait until a token has been given; `reason` says what was wrong with the last one. */
export function askForToken(reason) {
  asking ??= new Promise((resolve) => {
    if (savedToken()) return resolve();
    const form = document.getElementById("token-form");
    const input = document.getElementById("token");
    const wrong = document.getElementById("token-wrong");
    wrong.textContent = reason;
    form.hidden = false;
    input.focus();
    form.onsubmit = (event) => {
      event.preventDefault();
      const token = input.value.trim();
      if (!/^[\x20-\x7e]+$/.test(token)) { // what a header can carry
        wrong.textContent = "a token is printable ASCII";
        return;
      }
      sessionStorage.setItem(KEY, token);
      input.value = "";
      form.hidden = true;
      resolve();
    };
  }).finally(() => (asking = null));
  return asking;
}
