// Decodes messages with the JavaScript SDK of CloudEvents: [{headers, body}] on stdin, the events as JSON on stdout.
import { createRequire } from "node:module";

const { HTTP } = createRequire(process.argv[2] + "/")("cloudevents");

let input = "";
for await (const chunk of process.stdin) input += chunk;
const events = JSON.parse(input).map((message) => {
  const event = HTTP.toEvent({ headers: message.headers, body: message.body });
  return { ...event.toJSON(), valid: event.validate() };
});
process.stdout.write(JSON.stringify(events));
