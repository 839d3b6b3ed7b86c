/* Adapters: read, described, saved, in sessions, attached, merged and taken out. */
#include "smoke.h"
#include <stdio.h>
#include <string.h>

enum { VOCAB = 300 };
static const uint32_t ids[5] = {3, 1, 4, 1, 5};

static inlaid_session *begin(const inlaid_model *model) {
    inlaid_session *session = NULL;
    inlaid_error err;
    inlaid_error_init(&err, sizeof err);
    OK(inlaid_session_new(model, NULL, &session, &err));
    OK(inlaid_session_prefill(session, ids, 5, &err));
    return session;
}

static void logits_of(inlaid_session *session, float *out) {
    const float *logits = NULL;
    size_t n = 0;
    inlaid_error err;
    inlaid_error_init(&err, sizeof err);
    OK(inlaid_session_logits(session, &logits, &n, &err));
    CHECK(n == VOCAB);
    memcpy(out, logits, VOCAB * sizeof *out);
}

static int same(const float *a, const float *b) { return memcmp(a, b, VOCAB * sizeof *a) == 0; }

/* What the files say, and what is refused. */
static void reading(const inlaid_model *model, const char *path, const inlaid_adapter *adapter) {
    inlaid_adapter_info info;
    inlaid_adapter *other = NULL;
    char copy[512];
    inlaid_error err;
    inlaid_error_init(&err, sizeof err);
    info.struct_size = sizeof info;
    OK(inlaid_adapter_get_info(adapter, &info, &err));
    CHECK(info.kind == INLAID_ADAPTER_LORA && info.rank == 4 && info.virtual_tokens == 0);
    /* Three blocks, A of [4, 128] and B of [128, 4] in each. */
    CHECK(info.modules == 3 && info.parameters == 3 * 2 * 4 * 128);
    info.struct_size = 3;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_adapter_get_info(adapter, &info, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_adapter_get_info(NULL, &info, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_adapter_get_info(adapter, NULL, &err));

    EXPECT(INLAID_ERROR_IO, inlaid_adapter_open(model, "/no/such/adapter", &other, &err));
    SAYS("/no/such/adapter");
    CHECK(other == NULL);
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_adapter_open(model, NULL, &other, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_adapter_open(NULL, path, &other, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_adapter_open(model, path, NULL, &err));

    snprintf(copy, sizeof copy, "%s/saved", path);
    OK(inlaid_adapter_save(adapter, copy, &err));
    OK(inlaid_adapter_open(model, copy, &other, &err));
    info.struct_size = sizeof info;
    OK(inlaid_adapter_get_info(other, &info, &err));
    CHECK(info.rank == 4 && info.parameters == 3 * 2 * 4 * 128);
    inlaid_adapter_free(other);
    EXPECT(INLAID_ERROR_IO, inlaid_adapter_save(adapter, "/dev/null/adapter", &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_adapter_save(adapter, NULL, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_adapter_save(NULL, copy, &err));
    inlaid_adapter_retain(NULL);
    inlaid_adapter_free(NULL);
}

/* Sessions with and without, in one batch and alone. */
static void in_sessions(const inlaid_model *model, const inlaid_adapter *adapter) {
    inlaid_session *pair[2], *again;
    const inlaid_adapter *twice[2] = {adapter, adapter}, *none[1] = {NULL};
    const float halves[2] = {0.5f, 0.5f}, zero[1] = {0.0f};
    float plain[VOCAB], with[VOCAB], found[VOCAB];
    uint32_t tokens[2];
    int32_t status[2];
    inlaid_error err;
    inlaid_error_init(&err, sizeof err);
    pair[0] = begin(model);
    pair[1] = begin(model);
    logits_of(pair[0], plain);
    OK(inlaid_session_set_adapters(pair[1], &adapter, NULL, 1, &err));
    logits_of(pair[1], with);
    CHECK(!same(plain, with));
    logits_of(pair[0], found);
    CHECK(same(plain, found));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_set_adapters(pair[1], none, NULL, 1, &err));
    SAYS("number 0 is NULL");
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_set_adapters(pair[1], NULL, NULL, 1, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_set_adapters(NULL, &adapter, NULL, 1, &err));
    logits_of(pair[1], found);
    CHECK(same(with, found));
    OK(inlaid_batch_step(pair, 2, 0, tokens, status, &err));
    CHECK(status[0] == INLAID_OK && status[1] == INLAID_OK);
    OK(inlaid_session_rewind(pair[1], 5, &err));
    logits_of(pair[1], found);
    CHECK(same(with, found));

    OK(inlaid_session_set_adapters(pair[1], twice, halves, 2, &err));
    logits_of(pair[1], found);
    CHECK(!same(plain, found));
    OK(inlaid_session_set_adapters(pair[1], &adapter, zero, 1, &err));
    OK(inlaid_session_set_adapters(pair[1], NULL, NULL, 0, &err));
    logits_of(pair[1], found);
    CHECK(same(plain, found));

    OK(inlaid_model_attach(model, &adapter, NULL, 1, &err));
    again = begin(model);
    logits_of(again, found);
    CHECK(same(with, found));
    inlaid_session_free(again);
    OK(inlaid_model_attach(model, NULL, NULL, 0, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_attach(model, none, NULL, 1, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_attach(NULL, &adapter, NULL, 1, &err));

    OK(inlaid_session_rewind(pair[0], 5, &err));
    OK(inlaid_model_merge(model, &adapter, NULL, 1, &err));
    logits_of(pair[0], found);
    CHECK(!same(plain, found));
    OK(inlaid_model_unmerge(model, &err));
    OK(inlaid_model_unmerge(model, &err));
    logits_of(pair[0], found);
    CHECK(same(plain, found));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_merge(model, none, NULL, 1, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_merge(NULL, &adapter, NULL, 1, &err));
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_model_unmerge(NULL, &err));
    inlaid_session_free(pair[0]);
    inlaid_session_free(pair[1]);
}

void adapters(const char *path) {
    inlaid_engine *engine;
    inlaid_model *model, *other;
    inlaid_adapter *adapter = NULL;
    inlaid_session *session;
    const inlaid_adapter *foreign;
    inlaid_error err;
    inlaid_error_init(&err, sizeof err);
    open_model(path, &engine, &model);
    OK(inlaid_adapter_open(model, path, &adapter, &err));
    reading(model, path, adapter);
    in_sessions(model, adapter);
    OK(inlaid_model_open(engine, path, NULL, &other, &err));
    session = begin(other);
    foreign = adapter;
    EXPECT(INLAID_ERROR_ARGUMENT, inlaid_session_set_adapters(session, &foreign, NULL, 1, &err));
    SAYS("another model");
    inlaid_session_free(session);
    inlaid_model_free(other);
    /* A session keeps its adapters. */
    session = begin(model);
    inlaid_adapter_retain(adapter);
    OK(inlaid_session_set_adapters(session, &foreign, NULL, 1, &err));
    inlaid_adapter_free(adapter);
    inlaid_adapter_free(adapter);
    OK(inlaid_session_prefill(session, ids, 2, &err));
    inlaid_session_free(session);
    inlaid_model_free(model);
    inlaid_engine_free(engine);
}
