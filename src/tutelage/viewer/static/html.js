// One place where preact and htm meet. Text always becomes text nodes: nothing here takes markup.
import { h, render, Fragment } from "preact";
import { useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback } from "preact/hooks";
import htm from "htm";

const html = htm.bind(h);

export { html, render, Fragment, useState, useEffect, useLayoutEffect, useRef, useMemo, useCallback };
