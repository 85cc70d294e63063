// The Vercel AI SDK with its OpenAI-compatible provider against the server that BRIM_URL names. Its telemetry is off
// unless asked for.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const brim = createOpenAICompatible({
  name: "brim",
  baseURL: `${process.env.BRIM_URL}/v1`,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const greedy = { model: brim("demo"), temperature: 0, maxOutputTokens: 200, maxRetries: 0 };
const capital = "What is the capital of France?";
const Trip = z.object({ city: z.string().max(12), nights: z.number().int(), means: z.enum(["train", "bus"]) });

test("a streamed answer is the same as one not streamed", async () => {
  const whole = await generateText({ ...greedy, system: "You are a helpful assistant.", prompt: capital });
  assert.match(whole.text, /Paris/);
  assert.equal(whole.finishReason, "stop");
  assert.deepEqual(whole.warnings, []);
  const story = { ...greedy, prompt: "Tell me a story." }; // long enough that it cannot come in one piece
  const told = await generateText(story);
  const streamed = streamText(story);
  const parts = [];
  for await (const part of streamed.textStream) parts.push(part);
  assert.ok(parts.length > 1);
  assert.equal(parts.join(""), told.text);
  assert.equal(await streamed.finishReason, told.finishReason);
  const usage = await streamed.usage;
  assert.ok(usage.inputTokens > 0);
  assert.deepEqual([usage.inputTokens, usage.outputTokens], [told.usage.inputTokens, told.usage.outputTokens]);
});

function weather() {
  const asked = [];
  const get_weather = tool({
    description: "Get the weather of a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      asked.push(city);
      return { temperature: 21, condition: "sunny" };
    },
  });
  return { asked, request: { ...greedy, tools: { get_weather }, prompt: "What is the weather in Paris?" } };
}

test("a tool is called and its result told", async () => {
  const { asked, request } = weather();
  const answer = await generateText({ ...request, stopWhen: stepCountIs(3) });
  assert.deepEqual(asked, ["Paris"]);
  assert.deepEqual(answer.steps.map((step) => step.finishReason), ["tool-calls", "stop"]);
  assert.match(answer.text, /21/);
});

test("a tool's input streams", async () => {
  const { asked, request } = weather();
  const streamed = streamText({ ...request, stopWhen: stepCountIs(3) });
  const kinds = new Set();
  let input = "";
  for await (const part of streamed.fullStream) {
    kinds.add(part.type);
    if (part.type === "error") throw part.error;
    if (part.type === "tool-input-delta") input += part.delta;
  }
  assert.deepEqual(JSON.parse(input), { city: "Paris" });
  assert.deepEqual(asked, ["Paris"]);
  for (const kind of ["tool-input-start", "tool-input-end", "tool-call", "tool-result", "text-delta", "finish"]) {
    assert.ok(kinds.has(kind), kind);
  }
  assert.match(await streamed.text, /21/);
});

for (const toolChoice of ["required", { type: "tool", toolName: "get_weather" }]) {
  test(`a call that must be made is made: ${JSON.stringify(toolChoice)}`, async () => {
    const { asked, request } = weather();
    const answer = await generateText({ ...request, prompt: "Tell me a story.", toolChoice });
    assert.deepEqual(answer.toolCalls.map((call) => call.toolName), asked.map(() => "get_weather"));
    assert.ok(asked.length > 0);
  });
}

test("no tool is called where none may be", async () => {
  const { asked, request } = weather();
  const answer = await generateText({ ...request, toolChoice: "none" });
  assert.deepEqual(asked, []);
  assert.ok(answer.text);
});

test("output fits its schema, whole and streamed", async () => {
  const request = { ...greedy, prompt: "Plan a trip to Paris.", output: Output.object({ schema: Trip }) };
  const whole = await generateText(request);
  assert.deepEqual(whole.warnings, []);
  assert.ok(Trip.parse(whole.output));
  const streamed = streamText(request);
  const parts = [];
  for await (const part of streamed.partialOutputStream) parts.push(part);
  assert.deepEqual(parts.at(-1), whole.output);
  assert.deepEqual(await streamed.output, whole.output);
});

test("output is one of several", async () => {
  const output = Output.choice({ options: ["red", "green"] });
  const answer = await generateText({ ...greedy, prompt: "What colour is grass?", output });
  assert.ok(["red", "green"].includes(answer.output));
});

test("reasoning is told apart from the answer", async () => {
  const request = {
    ...greedy,
    prompt: "What is 3 plus 4?",
    providerOptions: { brim: { reasoningEffort: "low" } },
  };
  const whole = await generateText(request);
  assert.ok(whole.reasoningText);
  assert.match(whole.text, /7/);
  assert.ok(whole.usage.outputTokenDetails.reasoningTokens > 0);
  const streamed = streamText(request);
  await streamed.consumeStream();
  assert.equal(await streamed.reasoningText, whole.reasoningText);
  assert.equal(await streamed.text, whole.text);
});

test("a conversation with reasoning and calls is taken back", async () => {
  const { request } = weather();
  const first = await generateText({
    ...request,
    stopWhen: stepCountIs(3),
    providerOptions: { brim: { reasoningEffort: "low" } },
  });
  const messages = [
    { role: "user", content: request.prompt },
    ...first.response.messages,
    { role: "user", content: [{ type: "text", text: "What is the capital " }, { type: "text", text: "of Italy?" }] },
  ];
  const next = await generateText({ ...greedy, messages });
  assert.match(next.text, /Rome/);
});

test("stop sequences, penalties, seeds and brim's own fields are passed on", async () => {
  const asked = { maxOutputTokens: 40, seed: 7, topP: 0.9, presencePenalty: 0.5, frequencyPenalty: 0.5 };
  const free = await generateText({ ...greedy, ...asked, prompt: capital });
  const stopped = await generateText({ ...greedy, ...asked, prompt: capital, stopSequences: ["Paris"] });
  assert.ok(free.text.includes("Paris"));
  assert.equal(stopped.text, free.text.split("Paris")[0]);
  const chosen = await generateText({
    ...greedy,
    prompt: capital,
    providerOptions: { brim: { guided_choice: ["left", "right"] } },
  });
  assert.ok(["left", "right"].includes(chosen.text));
});

test("a text is completed", async () => {
  const model = brim.completionModel("demo");
  const request = { model, prompt: "Once upon a time", maxOutputTokens: 8, temperature: 0, maxRetries: 0 };
  const whole = await generateText(request);
  assert.ok(whole.text);
  assert.equal(await streamText(request).text, whole.text);
});

test("texts are embedded", async () => {
  const model = brim.embeddingModel("demo");
  const { embeddings, usage } = await embedMany({ model, values: ["a cat sat.", "9 dogs"], maxRetries: 0 });
  assert.equal(embeddings.length, 2);
  assert.ok(embeddings.every((vector) => Math.abs(Math.hypot(...vector) - 1) < 1e-3));
  assert.ok(usage.tokens > 0);
});

test("a refusal reaches the caller", async () => {
  const image = new Uint8Array([71, 73, 70, 56, 57, 97]);
  const messages = [{ role: "user", content: [{ type: "image", image, mediaType: "image/gif" }] }];
  await assert.rejects(generateText({ ...greedy, messages }), /vision/);
  await assert.rejects(generateText({ ...greedy, prompt: "word ".repeat(600) }), /the context holds 512/);
});
