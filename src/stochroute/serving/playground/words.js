// Every word of the page, in both languages.

const WORDS = {
  en: {
    prompt: "Prompt", paths: "Paths", strength: "Strength", budget: "Budget", temperature: "Temperature",
    spread: "Spread over the paths",
    length: "Tokens", hold: "Hold", span: "Noise on", seed: "Seed", key: "API key", fresh: "fresh",
    holdSequence: "one draw a text", hold16: "a draw every 16 tokens", hold1: "a draw a token",
    spanGenerated: "the new text", spanAll: "prompt and text",
    run: "Walk", stop: "Stop", compare: "Compare with plain sampling",
    copyCurl: "Copy as curl", copyPython: "Copy as Python", copied: "Copied",
    pinned: "Pinned", pin: "Pin", unpin: "Unpin", replay: "Replay", continue: "Continue", fork: "Fork", copy: "Copy",
    identical: "identical", differs: "differs", same: "walked again from its id: the same text",
    notSame: "walked again from its id: another text",
    off: "off", unit: "nats a token", ended: "The text has ended by itself.",
    zero: "No effect at temperature 0.", noNoise: "No effect at strength 0.", other: "Strength is set instead.",
    byBudget: "Budget is set instead.", nothing: "Nothing to compare at strength 0.",
    along: "Along paths", plain: "Plain sampling",
    plainWhy: "the same draws of tokens, without noise in the model",
    earlier: "Earlier (Alt ←)", later: "Later (Alt →)", theme: "Light or dark", keys: "Keys", close: "Close",
    trees: "Texts", copyId: "Copy the path's id", forkHere: "Fork here: the text up to this word becomes the prompt",
    welcome: "Type a beginning and walk several paths from it. What they share is drawn once.",
    walking: (done, all) => `${done} of ${all} texts have ended`,
    done: (n, distinct, shared) => `${n} texts, ${distinct} different; they share ${shared} words on average`,
    seedWas: (seed) => `seed ${seed}`, hint: "click a word to fork there",
    stopped: "Stopped.", gone: "The server cannot be reached.", needsKey: "This server asks for a key.",
    help: [
      ["Ctrl Enter", "walk"], ["Esc", "stop"], ["/", "to the prompt"], ["Alt ← →", "earlier and later walks"],
      ["← →", "from word to word, in a text"], ["Enter", "fork at the word"], ["P", "pin the path of the word"],
      ["R", "replay it"], ["C", "continue it"], ["?", "these keys"],
    ],
  },
  zh: {
    prompt: "开头", paths: "路径数", strength: "强度", budget: "预算", temperature: "温度",
    spread: "均摊给各条路径",
    length: "词元数", hold: "保持", span: "噪声位置", seed: "种子", key: "API 密钥", fresh: "随机",
    holdSequence: "整篇一次抽样", hold16: "每 16 个词元一次", hold1: "每个词元一次",
    spanGenerated: "新生成的文本", spanAll: "开头和文本",
    run: "出发", stop: "停止", compare: "与普通采样比较",
    copyCurl: "复制为 curl", copyPython: "复制为 Python", copied: "已复制",
    pinned: "已固定", pin: "固定", unpin: "取消固定", replay: "重放", continue: "继续", fork: "分叉", copy: "复制",
    identical: "完全相同", differs: "不同", same: "按编号重走一遍：文本完全相同", notSame: "按编号重走一遍：文本不同",
    off: "关", unit: "奈特/词元", ended: "这段文本已自行结束。",
    zero: "温度为 0 时不起作用。", noNoise: "强度为 0 时不起作用。", other: "已改用强度。",
    byBudget: "已改用预算。", nothing: "强度为 0，没有可比较的。",
    along: "沿路径", plain: "普通采样", plainWhy: "同样的词元抽样，模型内没有噪声",
    earlier: "上一次 (Alt ←)", later: "下一次 (Alt →)", theme: "浅色或深色", keys: "按键", close: "关闭",
    trees: "文本", copyId: "复制路径编号", forkHere: "在此分叉：到这个词为止的文本成为新的开头",
    welcome: "写一个开头，从这里走出几条路径。相同的部分只画一次。",
    walking: (done, all) => `${all} 段文本中已有 ${done} 段结束`,
    done: (n, distinct, shared) => `${n} 段文本，${distinct} 段各不相同；平均共享 ${shared} 个词`,
    seedWas: (seed) => `种子 ${seed}`, hint: "点击一个词，从那里分叉",
    stopped: "已停止。", gone: "无法连接服务器。", needsKey: "这个服务器需要密钥。",
    help: [
      ["Ctrl Enter", "出发"], ["Esc", "停止"], ["/", "回到开头"], ["Alt ← →", "上一次、下一次"],
      ["← →", "在文本中逐词移动"], ["Enter", "在这个词分叉"], ["P", "固定这个词所在的路径"],
      ["R", "重放"], ["C", "继续"], ["?", "显示按键"],
    ],
  },
};

let language = (localStorage.getItem("language") || navigator.language || "en").startsWith("zh") ? "zh" : "en";

export const word = (name) => WORDS[language][name];

export function otherLanguage() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
  translate();
}

export function translate() {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of document.querySelectorAll("[data-title]")) {
    element.title = word(element.dataset.title);
    element.setAttribute("aria-label", element.title);
  }
  for (const element of document.querySelectorAll("[data-placeholder]")) {
    element.placeholder = word(element.dataset.placeholder);
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", word(element.dataset.label));
  }
  document.querySelector("#language").textContent = language === "en" ? "中文" : "English";
  const list = document.querySelector("#keys dl");
  list.replaceChildren(...word("help").flatMap(([key, what]) => {
    const term = document.createElement("dt"), meaning = document.createElement("dd");
    term.append(...key.split(" ").map((part) => Object.assign(document.createElement("kbd"), { textContent: part })));
    meaning.textContent = what;
    return [term, meaning];
  }));
}
