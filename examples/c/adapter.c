// One model, two sessions: one as it is, one with an adapter, stepped together.
// adapter MODEL [ADAPTER [WEIGHT]]: the adapter's directory is the model's own unless another one is named.
#include <inlaid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int report(const inlaid_error *err) {
    fprintf(stderr, "%s: %s\n", inlaid_status_name(err->status), err->message);
    return 1;
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "model", *prompt = "Once upon a time";
    const char *adapters[] = {argc > 2 ? argv[2] : path};
    const float weight = argc > 3 ? strtof(argv[3], NULL) : 1.0f;
    inlaid_engine *engine = NULL;
    inlaid_model *model = NULL;
    inlaid_adapter *adapter = NULL;
    inlaid_session *sessions[2] = {NULL, NULL};
    uint32_t ids[512], next[2], answers[2][16];
    int32_t status[2];
    size_t n = 0, len = 0;
    char text[2048];
    inlaid_error err;
    inlaid_error_init(&err, sizeof err);

    int failed = inlaid_engine_new(NULL, &engine, &err) || inlaid_model_open(engine, path, NULL, &model, &err) ||
                 inlaid_adapter_open(model, adapters[0], &adapter, &err) ||
                 inlaid_tokenize(model, prompt, strlen(prompt), INLAID_ADD_SPECIAL, ids, 512, &n, &err);
    for (int i = 0; i < 2 && !failed; i++)
        failed = inlaid_session_new(model, NULL, &sessions[i], &err) || inlaid_session_prefill(sessions[i], ids, n, &err);
    const inlaid_adapter *list[] = {adapter};
    failed = failed || inlaid_session_set_adapters(sessions[1], list, &weight, 1, &err);
    for (int step = 0; step < 16 && !failed; step++) {
        failed = inlaid_batch_step(sessions, 2, 0, next, status, &err); // one pass over the weights for both
        for (int i = 0; i < 2 && !failed; i++) answers[i][step] = next[i];
    }
    for (int i = 0; i < 2 && !failed; i++) {
        failed = inlaid_detokenize(model, answers[i], 16, 0, text, sizeof text, &len, &err);
        if (!failed) printf("%s: %.*s\n", i ? "with the adapter" : "as it is", (int)len, text);
    }
    if (failed) report(&err);

    inlaid_session_free(sessions[0]); // any order; NULL is fine
    inlaid_session_free(sessions[1]);
    inlaid_adapter_free(adapter);
    inlaid_model_free(model);
    inlaid_engine_free(engine);
    return failed != 0;
}
