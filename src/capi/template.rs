//! Floor 6: conversations as text for the C calls, with the feature `chat-template`.

use crate::chat::RenderOptions;
use crate::error::Result;
use crate::model::Model;
use serde_json::Value as Json;

/// Whether the model has a template.
pub(super) fn has(model: &Model) -> bool {
    model.template().is_ok()
}

/// The text of a conversation.
pub(super) fn render(
    model: &Model,
    messages: &Json,
    tools: Option<&Json>,
    extra: Option<&Json>,
    add_generation_prompt: bool,
    now: Option<u64>,
) -> Result<String> {
    let options = RenderOptions { tools, extra, add_generation_prompt, now, ..RenderOptions::default() };
    model.template()?.render(messages, &options)
}
