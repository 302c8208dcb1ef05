//! Where the counts are in a response, as data with sources.

use crate::api::Api;

/// An object in which a provider tells counts of tokens.
#[derive(Debug)]
pub struct Row {
    /// What it is called here.
    pub name: &'static str,
    /// The APIs in which it counts.
    pub apis: &'static [Api],
    /// The member that holds the object, with its quotation marks.
    pub member: &'static str,
    /// The most objects around the member, the document included. What a model writes into the
    /// arguments of a tool is deeper.
    pub deepest: i32,
    /// The prompt. Counts of one field are added, here and below.
    pub input: &'static [&'static str],
    /// What was read from the cache.
    pub cache_read: &'static [&'static str],
    /// What was written to it.
    pub cache_write: &'static [&'static str],
    /// The output.
    pub output: &'static [&'static str],
    /// Whether the prompt's count includes what was read from the cache and written to it.
    pub includes_cached: bool,
    /// Whether zeros are left out. With all others what is absent is not known.
    pub leaves_out_zeros: bool,
}

/// What is counted, in the order of the fields of a row.
pub(super) type Counts = [Option<u64>; 4];

impl Row {
    /// Adds to the counts that of a field: its name, and that of the object that it is in, if it is
    /// a further one.
    pub(super) fn add(&self, counts: &mut Counts, object: &[u8], name: &[u8], count: u64) {
        let fields = [self.input, self.cache_read, self.cache_write, self.output];
        for (sum, paths) in counts.iter_mut().zip(fields) {
            if paths.iter().any(|path| is_path(path.as_bytes(), object, name)) {
                *sum = Some(sum.unwrap_or(0) + count);
            }
        }
    }
}

/// Whether a path is `object.name`, or only the name.
fn is_path(path: &[u8], object: &[u8], name: &[u8]) -> bool {
    if object.is_empty() {
        return path == name;
    }
    path.len() == object.len() + 1 + name.len()
        && path.starts_with(object)
        && path.get(object.len()) == Some(&b'.')
        && path.ends_with(name)
}

const OPENAI: &[Api] = &[Api::OpenAi, Api::Azure];

/// A row of an API of OpenAI, or of one that imitates it.
const fn openai(name: &'static str) -> Row {
    Row {
        name,
        apis: OPENAI,
        member: r#""usage""#,
        deepest: 2,
        input: &[],
        cache_read: &[],
        cache_write: &[],
        output: &[],
        includes_cached: true,
        leaves_out_zeros: false,
    }
}

/// All rows. Of the rows of one object the first counts that has a field. Sources: **S** the newest
/// official SDK or service model, **C** a client's or a gateway's source, **K** known, not read
/// again.
pub(super) static ROWS: &[Row] = &[
    // Chat Completions, also of Azure, xAI, OpenRouter, Mistral, vLLM, SGLang and llama.cpp. The
    // object is in the document, or in the last chunk of a stream of which the request has
    // `stream_options.include_usage`; all chunks before have `null`. vLLM on request has one in
    // every chunk: the last counts. S openai-python
    Row {
        input: &["prompt_tokens"],
        cache_read: &["prompt_tokens_details.cached_tokens"],
        cache_write: &["prompt_tokens_details.cache_write_tokens"],
        output: &["completion_tokens"],
        ..openai("chat")
    },
    // DeepSeek has the field of OpenAI as well, but its older servers. C litellm
    Row { cache_read: &["prompt_cache_hit_tokens"], ..openai("deepseek") },
    // Groq: `x_groq.usage`. S groq
    Row { cache_read: &["dram_cached_tokens", "sram_cached_tokens"], ..openai("groq") },
    // Responses: in the document, also of a compaction, or in `response` of the event that ends a
    // stream; in the events before it is `null`. S openai-python
    Row {
        input: &["input_tokens"],
        cache_read: &["input_tokens_details.cached_tokens"],
        cache_write: &["input_tokens_details.cache_write_tokens"],
        output: &["output_tokens"],
        ..openai("responses")
    },
    // Messages, also of Vertex and of Bedrock's InvokeModel. In a stream: `message_start` has it in
    // `message`, and `message_delta` again, but not always with all fields. The prompt's count is
    // that of what was neither read from the cache nor written to it. S anthropic-sdk-python
    Row {
        name: "anthropic",
        apis: &[Api::Anthropic, Api::Bedrock],
        input: &["input_tokens"],
        cache_read: &["cache_read_input_tokens"],
        cache_write: &["cache_creation_input_tokens"],
        output: &["output_tokens"],
        includes_cached: false,
        ..openai("")
    },
    // generateContent, also of Vertex, and in `response` of Code Assist: in every chunk, of which
    // the last counts. What tools have given the model is counted apart from the prompt, and its
    // thoughts apart from its output. S google-genai; the wrapper: K
    Row {
        name: "gemini",
        apis: &[Api::Gemini],
        member: r#""usageMetadata""#,
        input: &["promptTokenCount", "toolUsePromptTokenCount"],
        cache_read: &["cachedContentTokenCount"],
        output: &["candidatesTokenCount", "thoughtsTokenCount"],
        leaves_out_zeros: true,
        ..openai("")
    },
    // Interactions: in the document, or in `interaction` of `interaction.completed`. S google-genai
    Row {
        name: "interactions",
        apis: &[Api::Gemini],
        input: &["total_input_tokens", "total_tool_use_tokens"],
        cache_read: &["total_cached_tokens"],
        output: &["total_output_tokens", "total_thought_tokens"],
        leaves_out_zeros: true,
        ..openai("")
    },
    // Converse: in the document, or in `metadata`, the last event of a stream. S botocore
    Row {
        name: "converse",
        apis: &[Api::Bedrock],
        input: &["inputTokens"],
        cache_read: &["cacheReadInputTokens"],
        cache_write: &["cacheWriteInputTokens"],
        output: &["outputTokens"],
        includes_cached: false,
        ..openai("")
    },
    // The last `chunk` of InvokeModel's stream, beside the model's own event. C litellm
    Row {
        name: "invocation metrics",
        apis: &[Api::Bedrock],
        member: r#""amazon-bedrock-invocationMetrics""#,
        input: &["inputTokenCount"],
        cache_read: &["cacheReadInputTokenCount"],
        cache_write: &["cacheWriteInputTokenCount"],
        output: &["outputTokenCount"],
        includes_cached: false,
        ..openai("")
    },
];

/// The response headers of InvokeModel, which count as the row of Messages does: prompt, read,
/// written, output. C litellm, and captures of many
pub(super) const BEDROCK_HEADERS: [&str; 4] = [
    "x-amzn-bedrock-input-token-count",
    "x-amzn-bedrock-cache-read-input-token-count",
    "x-amzn-bedrock-cache-write-input-token-count",
    "x-amzn-bedrock-output-token-count",
];
