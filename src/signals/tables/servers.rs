//! OpenAI-compatible servers and gateways: vLLM, SGLang, llama.cpp, Ollama, TGI, LiteLLM, one-api
//! and others, of which only the words are known.

use crate::signals::Class::{
    Denied, Elsewhere, NotFound, NotHere, NotSupported, Overloaded, RequestFault, Transient,
};
use crate::signals::row::{Row, code, kind, phrase};

pub(super) static ROWS: &[Row] = &[
    // vLLM, SGLang. S
    kind("NotFoundError", NotHere).says("response with id"),
    kind("NotFoundError", NotFound).says("*does not exist"),
    // llama.cpp. S
    kind("unavailable_error", Transient),
    kind("exceed_context_size_error", RequestFault),
    // TGI. S
    kind("overloaded", Overloaded),
    // LiteLLM: budgets and permissions of its own keys. S
    kind("budget_exceeded", Denied),
    kind("key_model_access_denied", NotSupported).implied(),
    kind("team_model_access_denied", NotSupported).implied(),
    // one-api, new-api, Copilot, Venice, Volcengine, DashScope, Fireworks. T
    code("insufficient_user_quota", Denied),
    code("key_spend_limit_exceeded", Denied),
    code("insufficient_balance", Denied),
    code("Arrearage", Denied),
    code("AccountOverdueError", Denied),
    code("PRECONDITION_FAILED", Denied).says("account*is suspended"),
    code("model_not_supported", NotSupported),
    code("ModelNotOpen", NotSupported).implied(),
    code("Model.AccessDenied", NotSupported).implied(),
    code("AllocationQuota.FreeTierOnly", NotSupported).implied(),
    code("ServerOverloaded", Overloaded),
    // Ollama, Cohere: a limit of a week or a month, and not when it ends. T
    phrase("limit_of_a_week", Denied).says("you *reached your weekly usage limit").on(&[429]),
    phrase("limit_of_a_month", Denied)
        .says("you are using a trial key, which is limited to*/ month")
        .on(&[429]),
    // Words about this key, this account or this plan: the credential lacks the model, whatever
    // name the provider has for it. T
    phrase("model_not_for_this_key", NotSupported)
        .says("*model*not available for this api key")
        .implied(),
    phrase("model_not_for_this_key", NotSupported).says("*model*not available for your").implied(),
    phrase("model_not_for_this_key", NotSupported).says("*not have access to*model").implied(),
    phrase("model_not_for_this_key", NotSupported).says("*not allowed to access*model").implied(),
    // Words about a model. T
    phrase("model_not_supported", NotSupported).says("*model is not supported"),
    phrase("model_not_supported", NotSupported).says("*model not supported"),
    phrase("model_not_supported", NotSupported).says("*requested model is unsupported"),
    phrase("model_not_supported", NotSupported).says("*unsupported model"),
    phrase("model_not_available", NotSupported).says("*model is unavailable"),
    phrase("model_not_available", NotSupported).says("*model unavailable"),
    phrase("model_not_found", NotFound).says("model *not found"),
    phrase("model_not_found", NotFound).says("the model *not found"),
    // new-api: none of its own upstreams has the model at the moment. T
    phrase("no_available_channel", Elsewhere).says("no available channel"),
];
