/* Text into tokens and back; conversations into text. */
#include "smoke.h"

static void tokens(const inlaid_model *model, const inlaid_model *textless) {
    static const char text[] = "Hello, caf\xc3\xa9 <|end|>!";
    const size_t len = sizeof text - 1;
    inlaid_error err;
    uint32_t ids[64], again[64], plain[64], id = 0;
    size_t n = 0, n_plain = 0, out_len = 0, i;
    char out[128];
    inlaid_error_init(&err, sizeof err);

    OK(inlaid_tokenize(model, text, len, INLAID_PARSE_SPECIAL, NULL, 0, &n, &err));
    CHECK(n > 0 && n < 64);
    OK(inlaid_tokenize(model, text, len, INLAID_PARSE_SPECIAL, ids, n, &n, &err));
    memset(again, 0x55, sizeof again);
    EXPECT(INLAID_ERROR_BUFFER, inlaid_tokenize(model, text, len, INLAID_PARSE_SPECIAL, again, n - 1, &n, &err));
    CHECK(again[0] == 0x55555555 && n > 1);
    OK(inlaid_tokenize(model, text, len, INLAID_ADD_SPECIAL, plain, 64, &n_plain, &err));
    CHECK(n_plain > n); /* the special token is spelled out */
    OK(inlaid_tokenize(model, NULL, 0, 0, NULL, 0, &n_plain, &err));
    CHECK(n_plain == 0);

    OK(inlaid_detokenize(model, ids, n, 0, NULL, 0, &out_len, &err));
    CHECK(out_len == len);
    memset(out, 0x55, sizeof out);
    EXPECT(INLAID_ERROR_BUFFER, inlaid_detokenize(model, ids, n, 0, out, len, &out_len, &err));
    CHECK(out[0] == 0x55 && out_len == len);
    OK(inlaid_detokenize(model, ids, n, 0, out, len + 1, &out_len, &err));
    CHECK(strcmp(out, text) == 0 && out[len + 1] == 0x55);
    OK(inlaid_detokenize(model, ids, n, INLAID_SKIP_SPECIAL, out, sizeof out, &out_len, &err));
    CHECK(strcmp(out, "Hello, caf\xc3\xa9 !") == 0 && out_len == strlen(out));

    OK(inlaid_token_id(model, "<|end|>", 7, &id, &err));
    for (i = 0; i < n && ids[i] != id; i++) continue;
    CHECK(i < n);
    OK(inlaid_token_name(model, id, out, sizeof out, &out_len, &err));
    CHECK(strcmp(out, "<|end|>") == 0 && out_len == 7);
    EXPECT(INLAID_ERROR_BUFFER, inlaid_token_name(model, id, out, 7, &out_len, &err));
    EXPECT(INLAID_ERROR_TOKENIZER, inlaid_token_name(model, 1000000, out, sizeof out, &out_len, &err));
    EXPECT(INLAID_ERROR_TOKENIZER, inlaid_token_id(model, "no such token", 13, &id, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_token_id(model, "x", 1, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_token_id(NULL, "x", 1, &id, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_token_name(NULL, id, out, sizeof out, &out_len, &err));

    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_tokenize(model, "caf\xc3", 4, 0, ids, 64, &n, &err));
    SAYS("offset 3");
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_tokenize(model, NULL, 4, 0, ids, 64, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_tokenize(model, text, len, 64, ids, 64, &n, &err));
    SAYS("flags");
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_tokenize(model, text, len, 0, NULL, 64, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_tokenize(model, text, len, 0, ids, 64, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_tokenize(NULL, text, len, 0, ids, 64, &n, &err));
    id = 1000000;
    EXPECT(INLAID_ERROR_TOKENIZER, inlaid_detokenize(model, &id, 1, 0, out, sizeof out, &out_len, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_detokenize(model, NULL, 1, 0, out, sizeof out, &out_len, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_detokenize(model, ids, 1, INLAID_ADD_SPECIAL, out, 9, &out_len, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_detokenize(NULL, ids, 1, 0, out, sizeof out, &out_len, &err));
    EXPECT(INLAID_ERROR_TOKENIZER, inlaid_tokenize(textless, text, len, 0, ids, 64, &n, &err));
    EXPECT(INLAID_ERROR_TOKENIZER, inlaid_detokenize(textless, ids, 1, 0, out, sizeof out, &out_len, &err));
    EXPECT(INLAID_ERROR_TOKENIZER, inlaid_token_name(textless, 1, out, sizeof out, &out_len, &err));
    EXPECT(INLAID_ERROR_TOKENIZER, inlaid_token_id(textless, "x", 1, &id, &err));
}

static void conversations(const inlaid_model *model, const inlaid_model *textless) {
    static const char messages[] = "[{\"role\": \"user\", \"content\": \"Hi\"}]";
    static const char tools[] = "[{\"name\": \"clock\"}]";
    static const char extra[] = "{\"mood\": \"calm\"}";
    const size_t len = sizeof messages - 1;
    inlaid_error err;
    inlaid_template_config config;
    char out[256];
    size_t n = 0;
    inlaid_error_init(&err, sizeof err);

    OK(inlaid_chat_render(model, messages, len, NULL, NULL, 0, &n, &err));
    OK(inlaid_chat_render(model, messages, len, NULL, out, n + 1, &n, &err));
    CHECK(strcmp(out, "<|user|>Hi<|end|><|assistant|>") == 0 && n == strlen(out));
    EXPECT(INLAID_ERROR_BUFFER, inlaid_chat_render(model, messages, len, NULL, out, n, &n, &err));

    CHECK(inlaid_template_config_init(&config, sizeof config) == INLAID_OK);
    CHECK(inlaid_template_config_init(&config, 2) == INLAID_ERROR_ARGUMENT);
    CHECK(inlaid_template_config_init(NULL, sizeof config) == INLAID_ERROR_ARGUMENT);
    config.add_generation_prompt = 0;
    config.tools = tools;
    config.tools_len = sizeof tools - 1;
    config.extra = extra;
    config.extra_len = sizeof extra - 1;
    config.now_s = 1000000000;
    OK(inlaid_chat_render(model, messages, len, &config, out, sizeof out, &n, &err));
    CHECK(strcmp(out, "1 tools, calm, 2001<|user|>Hi<|end|>") == 0);

    config.tools_len = 5;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_chat_render(model, messages, len, &config, out, sizeof out, &n, &err));
    SAYS("tools");
    config.tools_len = 0;
    config.tools = NULL;
    config.add_generation_prompt = 7;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_chat_render(model, messages, len, &config, out, sizeof out, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_chat_render(model, "{", 1, NULL, out, sizeof out, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_chat_render(model, "7", 1, NULL, out, sizeof out, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_chat_render(model, NULL, 0, NULL, out, sizeof out, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_chat_render(model, "\"\xff\"", 3, NULL, out, sizeof out, &n, &err));
    EXPECT(INLAID_ERROR_TEMPLATE, inlaid_chat_render(model, "[]", 2, NULL, out, sizeof out, &n, &err));
    SAYS("nobody speaks");
    EXPECT(INLAID_ERROR_TEMPLATE, inlaid_chat_render(textless, messages, len, NULL, out, sizeof out, &n, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_chat_render(NULL, messages, len, NULL, out, sizeof out, &n, &err));
}

void texts(const char *path, const char *textless_path) {
    inlaid_engine *engine, *other;
    inlaid_model *model, *textless;
    open_model(path, &engine, &model);
    open_model(textless_path, &other, &textless);
    tokens(model, textless);
    conversations(model, textless);
    inlaid_model_free(textless);
    inlaid_model_free(model);
    inlaid_engine_free(engine);
    inlaid_engine_free(other);
}
