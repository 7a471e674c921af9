// The address after #: a page and its parameters, such as #/episodes/RUN?won=no.
import { useState, useEffect } from "./html.js";

function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return {
    path: path.split("/").map(decodeURIComponent),
    query: Object.fromEntries(new URLSearchParams(query)),
  };
}

function link(path, query = {}) {
  const left = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const text = new URLSearchParams(left).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

function go(path, query = {}, { replace = false } = {}) {
  if (replace) {
    history.replaceState(null, "", link(path, query));
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = link(path, query);
  }
}

function useRoute() {
  const [route, set] = useState(read());
  useEffect(() => {
    const changed = () => set(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

export { useRoute, link, go };
