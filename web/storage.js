// localStorage and sessionStorage. A browser that blocks cookies also blocks these, and then the
// values last as long as the page.

function open(name) {
  const values = new Map();
  const memory = {
    getItem: (key) => values.get(key) ?? null,
    setItem: (key, value) => values.set(key, String(value)),
    removeItem: (key) => values.delete(key),
  };
  try {
    const storage = window[name];
    storage.setItem("usher-probe", "1");
    storage.removeItem("usher-probe");
    return storage;
  } catch {
    return memory;
  }
}

export const deviceStorage = open("localStorage");
export const tabStorage = open("sessionStorage");
