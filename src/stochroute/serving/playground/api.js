// The server: its model, streamed completions, and the same request for other clients.

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

let key = "";
export const setKey = (value) => { key = value; };

const headers = () => ({ "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) });

async function checked(answer) {
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  throw new Refused(answer.status, body?.error?.message ?? `${answer.status} ${answer.statusText}`);
}

export async function model() {
  const answer = await checked(await fetch("v1/models", { headers: headers() }));
  return (await answer.json()).data[0];
}

// Calls onEvent with every chunk of a streamed completion; returns when it has ended.
export async function complete(request, signal, onEvent) {
  const body = JSON.stringify({ ...request, stream: true });
  const answer = await checked(await fetch("v1/completions", { method: "POST", headers: headers(), body, signal }));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") continue;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Refused(500, chunk.error.message);
      onEvent(chunk);
    }
  }
}

const FIELDS = ["paths", "strength", "budget", "hold", "span", "spread"]; // the official client takes these in extra_body
const PYTHON = new Map([[null, "None"], [true, "True"], [false, "False"]]); // where it is not as in JSON

export function asCurl(request) {
  const body = JSON.stringify(request, null, 2).replaceAll("'", "'\\''");
  const bearer = key ? ` \\\n  -H "authorization: Bearer $STOCHROUTE_API_KEY"` : "";
  return `curl ${location.origin}/v1/completions \\\n  -H 'content-type: application/json'${bearer} \\\n  -d '${body}'\n`;
}

export function asPython(request) {
  const python = (value) => PYTHON.get(value) ?? JSON.stringify(value);
  const own = FIELDS.filter((name) => name in request);
  const plain = Object.keys(request).filter((name) => !own.includes(name));
  const extra = own.map((name) => `${JSON.stringify(name)}: ${python(request[name])}`).join(", ");
  return [
    "import os",
    "",
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${location.origin}/v1", api_key=os.environ.get("STOCHROUTE_API_KEY", "none"))`,
    "answer = client.completions.create(",
    ...plain.map((name) => `    ${name}=${python(request[name])},`),
    ...(own.length ? [`    extra_body={${extra}},`] : []),
    ")",
    "for choice in answer.choices:",
    "    print(choice.path, choice.text)",
    "",
  ].join("\n");
}
