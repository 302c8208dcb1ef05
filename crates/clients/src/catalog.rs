//! The clients: their versions, their settings, and what starts and resumes a session.

use super::client::{Client, Package};

const OPENAI_SDK: &str = include_str!("sdk/openai_chat.py");
const ANTHROPIC_SDK: &str = include_str!("sdk/anthropic_messages.py");
const GOOGLE_SDK: &str = include_str!("sdk/google_contents.py");

pub(crate) const CLIENTS: &[Client] = &[
    Client {
        name: "claude-code",
        package: Package::Npm("@anthropic-ai/claude-code@2.1.332", "claude"),
        files: &[],
        environment: &[
            ("ANTHROPIC_BASE_URL", "$GATEWAY"),
            ("ANTHROPIC_API_KEY", "key-of-the-client"),
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ("DISABLE_AUTOUPDATER", "1"),
        ],
        first: &["-p", "$TEXT"],
        later: &["-p", "--continue", "$TEXT"],
    },
    Client {
        name: "codex",
        package: Package::Npm("@openai/codex@0.169.0", "codex"),
        files: &[(
            ".codex/config.toml",
            "model = \"gpt-5.6\"\nmodel_provider = \"gateway\"\n\n[model_providers.gateway]\nname = \"gateway\"\n\
             base_url = \"$GATEWAY/v1\"\nenv_key = \"GATEWAY_KEY\"\nwire_api = \"responses\"\n",
        )],
        environment: &[("GATEWAY_KEY", "key-of-the-client")],
        first: &["exec", "--skip-git-repo-check", "$TEXT"],
        later: &["exec", "resume", "--last", "--skip-git-repo-check", "$TEXT"],
    },
    Client {
        name: "gemini-cli",
        package: Package::Npm("@google/gemini-cli@0.61.0", "gemini"),
        files: &[(
            ".gemini/settings.json",
            r#"{"security": {"auth": {"selectedType": "gemini-api-key"}}, "general": {"disableAutoUpdate": true}}"#,
        )],
        environment: &[
            ("GOOGLE_GEMINI_BASE_URL", "$GATEWAY"),
            ("GEMINI_API_KEY", "key-of-the-client"),
            ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
        ],
        // Without a model, a smaller one is asked for JSON first, which simulated providers do not write.
        first: &["-m", "gemini-2.5-flash", "-p", "$TEXT"],
        later: &["-m", "gemini-2.5-flash", "--resume", "latest", "-p", "$TEXT"],
    },
    Client {
        name: "opencode",
        package: Package::Npm("opencode-ai@1.18.33", "opencode"),
        files: &[(
            ".config/opencode/opencode.json",
            r#"{"autoupdate": false, "share": "disabled", "model": "anthropic/claude-sonnet-4-5", "provider": {"anthropic":
               {"options": {"baseURL": "$GATEWAY/v1", "apiKey": "key-of-the-client"}}}}"#,
        )],
        environment: &[],
        first: &["run", "$TEXT"],
        later: &["run", "-c", "$TEXT"],
    },
    Client {
        name: "qwen-code",
        package: Package::Npm("@qwen-code/qwen-code@0.24.4", "qwen"),
        files: &[],
        environment: &[
            ("OPENAI_BASE_URL", "$GATEWAY/v1"),
            ("OPENAI_API_KEY", "key-of-the-client"),
            ("OPENAI_MODEL", "gpt-5.6"),
        ],
        first: &["--auth-type", "openai", "-p", "$TEXT"],
        later: &["--auth-type", "openai", "--continue", "-p", "$TEXT"],
    },
    Client {
        name: "aider",
        package: Package::PyPi("aider-chat==0.86.2", "aider"),
        files: &[],
        environment: &[
            ("OPENAI_API_BASE", "$GATEWAY/v1"),
            ("OPENAI_API_KEY", "key-of-the-client"),
            ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
            ("AIDER_ANALYTICS_DISABLE", "true"),
        ],
        first: AIDER,
        later: AIDER,
    },
    Client {
        name: "anthropic-sdk",
        package: Package::PyPi("anthropic==2.14.0", "python"),
        files: &[("turn.py", ANTHROPIC_SDK)],
        environment: &[],
        first: SDK,
        later: SDK,
    },
    Client {
        name: "openai-sdk",
        package: Package::PyPi("openai==3.57.0", "python"),
        files: &[("turn.py", OPENAI_SDK)],
        environment: &[],
        first: SDK,
        later: SDK,
    },
    Client {
        name: "google-genai-sdk",
        package: Package::PyPi("google-genai==3.6.1", "python"),
        files: &[("turn.py", GOOGLE_SDK)],
        environment: &[],
        first: SDK,
        later: SDK,
    },
];

const AIDER: &[&str] = &[
    "--model",
    "openai/gpt-5.6",
    "--no-git",
    "--yes-always",
    "--no-check-update",
    "--no-show-model-warnings",
    "--no-analytics",
    "--restore-chat-history",
    "--message",
    "$TEXT",
];

/// A turn of a program with an SDK, which keeps what was said in a file of its directory.
const SDK: &[&str] = &["$HOME/turn.py", "$GATEWAY", "$TEXT"];
