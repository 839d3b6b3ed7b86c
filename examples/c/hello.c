#include <inlaid.h>
#include <stdio.h>
#include <string.h>

static int32_t print(void *user, const char *text, size_t len, uint32_t id) {
    (void)user, (void)id;
    fwrite(text, 1, len, stdout);
    fflush(stdout);
    return 0; // go on
}

int main(int argc, char **argv) {
    const char *prompt = argc > 2 ? argv[2] : "Once upon a time";
    inlaid_engine *engine = NULL;
    inlaid_model *model = NULL;
    inlaid_session *session = NULL;
    uint32_t ids[512];
    size_t n = 0;
    inlaid_error err;
    inlaid_error_init(&err, sizeof err);

    if (inlaid_engine_new(NULL, &engine, &err) ||
        inlaid_model_open(engine, argc > 1 ? argv[1] : "model", NULL, &model, &err) ||
        inlaid_tokenize(model, prompt, strlen(prompt), INLAID_ADD_SPECIAL, ids, 512, &n, &err) ||
        inlaid_session_new(model, NULL, &session, &err) ||
        inlaid_session_prefill(session, ids, n, &err) ||
        inlaid_generate(session, NULL, print, NULL, NULL, NULL, &err))
        fprintf(stderr, "%s: %s\n", inlaid_status_name(err.status), err.message);
    else
        printf("\n");

    inlaid_session_free(session); // any order; NULL is fine
    inlaid_model_free(model);
    inlaid_engine_free(engine);
    return err.status != INLAID_OK;
}
