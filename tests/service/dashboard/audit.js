// Looks through a page for what readers cannot read, and for controls that nobody who hears the page can name.
() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

  // A colour as the screen shows it over another one.
  const over = (colour, ground) => {
    paint.clearRect(0, 0, 1, 1);
    for (const one of [ground, colour]) {
      paint.fillStyle = one;
      paint.fillRect(0, 0, 1, 1);
    }
    const [r, g, b] = paint.getImageData(0, 0, 1, 1).data;
    return `rgb(${r}, ${g}, ${b})`;
  };
  const groundOf = (element) => {
    const chain = [];
    for (let at = element; at; at = at.parentElement) chain.unshift(getComputedStyle(at).backgroundColor);
    return chain.reduce((ground, colour) => over(colour, ground), "white");
  };

  // Relative luminance and contrast as WCAG 2 defines them.
  const luminance = (colour) => {
    const parts = colour.match(/\d+/g).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (element) => {
    const style = getComputedStyle(element);
    const ground = groundOf(element);
    const colour = over(element.closest("svg") ? style.fill : style.color, ground);
    const [high, low] = [luminance(colour), luminance(ground)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };

  const pale = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].find((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!text || !element.checkVisibility() || element.closest("noscript, option, :disabled")) continue;
    const { fontSize, fontWeight } = getComputedStyle(element);
    const large = parseFloat(fontSize) >= 24 || (parseFloat(fontSize) >= 18.66 && fontWeight >= 700);
    const ratio = contrast(element);
    if (ratio < (large ? 3 : 4.5)) pale.push(`${element.tagName} "${text.data.trim()}" ${ratio.toFixed(2)}`);
  }

  const controls = "button, a[href], input, select, textarea, [role=img], [role=progressbar]";
  const isNamed = (element) =>
    element.getAttribute("aria-label") || element.labels?.length || element.textContent.trim();
  const nameless = [...document.querySelectorAll(controls)]
    .filter((element) => element.checkVisibility() && !isNamed(element))
    .map((element) => element.outerHTML.slice(0, 120));

  const tooWide = Math.max(0, document.documentElement.scrollWidth - innerWidth);
  return { pale, nameless, tooWide };
};
