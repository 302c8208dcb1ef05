//! What providers' errors mean, a file for each provider.
//!
//! Every table is searched for every response, because the operator's name for a pool does not say
//! whose errors come: codes are distinct enough. Sources: **S** a provider's SDK or service model,
//! **D** its documentation, **T** captures and issues of others, **K** known, not read again.

mod anthropic;
mod azure;
mod bedrock;
mod cdn;
mod codex;
mod deepseek;
mod google;
mod groq;
mod mistral;
mod moonshot;
mod openai;
mod openrouter;
mod servers;
mod xai;
mod zhipu;

use super::row::Row;

/// Every table with its name, in the order in which they are searched.
pub(super) static ALL: [(&str, &[Row]); 15] = [
    ("anthropic", anthropic::ROWS),
    ("openai", openai::ROWS),
    ("codex", codex::ROWS),
    ("azure", azure::ROWS),
    ("google", google::ROWS),
    ("bedrock", bedrock::ROWS),
    ("xai", xai::ROWS),
    ("openrouter", openrouter::ROWS),
    ("deepseek", deepseek::ROWS),
    ("groq", groq::ROWS),
    ("mistral", mistral::ROWS),
    ("moonshot", moonshot::ROWS),
    ("zhipu", zhipu::ROWS),
    ("servers", servers::ROWS),
    ("cdn", cdn::ROWS),
];
