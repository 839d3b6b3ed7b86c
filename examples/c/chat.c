// A conversation of two turns: chat.c MODEL [QUESTION]. The second turn finds the first one in the session's cache.
#include <inlaid.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct answer {
    char text[8192];
    size_t len;
};

static int32_t take(void *user, const char *text, size_t len, uint32_t id) {
    struct answer *answer = user;
    (void)id;
    if (len > sizeof answer->text - 1 - answer->len) return 1; // enough
    memcpy(answer->text + answer->len, text, len);
    answer->len += len;
    fwrite(text, 1, len, stdout);
    fflush(stdout);
    return 0;
}

// Appends `{"role": role, "content": text}` to a JSON list. (A real program has a JSON library.)
static void say(char *json, size_t room, const char *role, const char *text) {
    size_t n = strlen(json);
    n += (size_t)snprintf(json + n, room - n, "%s{\"role\": \"%s\", \"content\": \"", n > 1 ? ", " : "", role);
    for (; *text && n + 16 < room; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == '"' || c == '\\')
            n += (size_t)snprintf(json + n, room - n, "\\u%04x", c);
        else
            json[n++] = *text;
    }
    snprintf(json + n, room - n, "\"}");
}

int main(int argc, char **argv) {
    static struct answer answer;
    static char messages[65536] = "[", list[65600];
    const char *questions[2] = {argc > 2 ? argv[2] : "Who are you?", "Say that in fewer words."};
    inlaid_engine *engine = NULL;
    inlaid_model *model = NULL;
    inlaid_session *session = NULL;
    inlaid_session_config config;
    inlaid_sampler sampler;
    inlaid_error err;
    int32_t status;
    int turn;

    inlaid_error_init(&err, sizeof err);
    inlaid_sampler_init(&sampler, sizeof sampler);
    sampler.temperature = 0.7f;
    sampler.top_p = 0.9f;
    inlaid_session_config_init(&config, sizeof config);
    config.sampler = &sampler;

    status = inlaid_engine_new(NULL, &engine, &err);
    if (!status) status = inlaid_model_open(engine, argc > 1 ? argv[1] : "model", NULL, &model, &err);
    if (!status) status = inlaid_session_new(model, &config, &session, &err);
    for (turn = 0; turn < 2 && !status; turn++) {
        say(messages, sizeof messages, "user", questions[turn]);
        snprintf(list, sizeof list, "%s]", messages);
        memset(&answer, 0, sizeof answer);
        printf("> %s\n", questions[turn]);
        status = inlaid_chat(session, list, strlen(list), NULL, NULL, take, &answer, NULL, NULL, &err);
        printf("\n");
        say(messages, sizeof messages, "assistant", answer.text);
    }
    if (status) fprintf(stderr, "%s: %s\n", inlaid_status_name(status), err.message);

    inlaid_session_free(session);
    inlaid_model_free(model);
    inlaid_engine_free(engine);
    return status ? EXIT_FAILURE : EXIT_SUCCESS;
}
