/* OpenAI request bodies: what is taken, what is refused and how the error names it. */
#include "tests/test.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "appliance/openai.h"

static const nj_sampling defaults = {
    .temperature = 0.8f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .typical_p = 1, .repeat_penalty = 1, .seed = 3
};

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

static json_t *json_of(const char *text)
{
    json_error_t error;
    json_t *value = json_loads(text, 0, &error);
    if (!value) fail_msg("bad JSON in the test: %s: %s", error.text, text);
    return value;
}

static int parse(nj_openai_request *r, nj_openai_kind kind, const char *body, nj_openai_error *e)
{
    json_t *value = json_of(body);
    int rc = nj_openai_request_parse(r, kind, value, &defaults, e);
    json_decref(value);
    return rc;
}

static nj_openai_request parsed(nj_openai_kind kind, const char *body)
{
    nj_openai_request r;
    nj_openai_error e;
    if (parse(&r, kind, body, &e)) fail_msg("%s: %s", e.message, body);
    return r;
}

/* The template's arguments, compactly. free() it. */
static char *args_of(const char *body)
{
    nj_openai_request r = parsed(NJ_OPENAI_CHAT, body);
    char *text = json_dumps(r.template_args, JSON_COMPACT | JSON_SORT_KEYS);
    nj_openai_request_free(&r);
    return text;
}

static void expect_args(const char *body, const char *want)
{
    char *got = args_of(body);
    assert_string_equal(got, want);
    free(got);
}

static void absent_and_null_fields_leave_the_defaults(void **state)
{
    (void)state;
    nj_openai_request r =
        parsed(NJ_OPENAI_CHAT, "{" USER ",\"temperature\":null,\"stop\":null,\"seed\":null,\"n\":null}");
    assert_memory_equal(&r.sampling, &defaults, sizeof defaults);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.max_tokens, 0);
    assert_false(r.seed_set || r.logprobs || r.ignore_eos || r.stop_count);
    nj_openai_request_free(&r);
}

static void every_setting_reaches_its_field(void **state)
{
    (void)state;
    nj_openai_request r = parsed(
        NJ_OPENAI_CHAT,
        "{" USER ",\"model\":\"m\",\"temperature\":0,\"top_p\":0.5,\"top_k\":7,\"min_p\":0.25,\"typical_p\":0.75,"
        "\"repeat_penalty\":1.5,\"presence_penalty\":-2,\"frequency_penalty\":2,\"penalty_window\":64,\"seed\":-1,"
        "\"max_tokens\":9,\"max_completion_tokens\":10,\"n\":2,\"stop\":[\"a\",\"b\"],\"ignore_eos\":true,"
        "\"logprobs\":true,\"top_logprobs\":5,\"logit_bias\":{\"12\":-100,\"3\":1.5},\"stream\":false,\"user\":\"x\"}");
    assert_string_equal(r.model, "m");
    assert_true(r.sampling.temperature == 0 && r.sampling.top_p == 0.5f && r.sampling.top_k == 7);
    assert_true(r.sampling.min_p == 0.25f && r.sampling.typical_p == 0.75f && r.sampling.repeat_penalty == 1.5f);
    assert_true(r.sampling.presence_penalty == -2 && r.sampling.frequency_penalty == 2);
    assert_int_equal(r.sampling.penalty_window, 64);
    assert_true(r.seed_set && r.sampling.seed == UINT64_MAX);
    assert_int_equal(r.max_tokens, 10);
    assert_int_equal(r.n, 2);
    assert_int_equal(r.stop_count, 2);
    assert_string_equal(r.stop[1], "b");
    assert_true(r.ignore_eos && r.logprobs);
    assert_int_equal(r.top_logprobs, 5);
    assert_int_equal(r.sampling.bias_count, 2);
    assert_int_equal(r.sampling.bias[0].token, 12);
    assert_true(r.sampling.bias[0].bias == -100);
    nj_openai_request_free(&r);
}

static void content_parts_become_text(void **state)
{
    (void)state;
    expect_args("{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
                "{\"type\":\"text\",\"text\":\"b\"}]}]}",
                "{\"add_generation_prompt\":true,\"messages\":[{\"content\":\"a\\nb\",\"role\":\"user\"}]}");
}

static void developer_is_the_system_role(void **state)
{
    (void)state;
    expect_args("{\"messages\":[{\"role\":\"developer\",\"content\":\"x\"}]}",
                "{\"add_generation_prompt\":true,\"messages\":[{\"content\":\"x\",\"role\":\"system\"}]}");
}

static void arguments_of_tool_calls_are_opened(void **state)
{
    (void)state;
    expect_args(
        "{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"type\":\"function\","
        "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"x\\\": 1}\"}}]}]}",
        "{\"add_generation_prompt\":true,\"messages\":[{\"content\":null,\"role\":\"assistant\",\"tool_calls\":["
        "{\"function\":{\"arguments\":{\"x\":1},\"name\":\"f\"},\"type\":\"function\"}]}]}");
}

static void tools_and_template_arguments_reach_the_template(void **state)
{
    (void)state;
    expect_args("{" USER ",\"chat_template_kwargs\":{\"enable_thinking\":false,\"messages\":[]},"
                "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"auto\"}",
                "{\"add_generation_prompt\":true,\"enable_thinking\":false,\"messages\":[{\"content\":\"Hi\",\"role\":"
                "\"user\"}],\"tools\":[{\"function\":{\"name\":\"f\"},\"type\":\"function\"}]}");
    expect_args("{" USER ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":\"none\"}",
                "{\"add_generation_prompt\":true,\"messages\":[{\"content\":\"Hi\",\"role\":\"user\"}]}");
}

static void prompts_come_in_four_forms(void **state)
{
    (void)state;
    nj_openai_request r = parsed(NJ_OPENAI_COMPLETION, "{\"prompt\":\"one\",\"logprobs\":0}");
    assert_int_equal(r.prompt_count, 1);
    assert_string_equal(r.prompt[0].text, "one");
    assert_true(r.logprobs && r.top_logprobs == 0);
    assert_int_equal(r.max_tokens, 16);
    nj_openai_request_free(&r);
    r = parsed(NJ_OPENAI_COMPLETION, "{\"prompt\":[\"one\",\"two\"],\"echo\":true,\"best_of\":1,\"suffix\":\"\"}");
    assert_int_equal(r.prompt_count, 2);
    assert_string_equal(r.prompt[1].text, "two");
    assert_true(r.echo);
    nj_openai_request_free(&r);
    r = parsed(NJ_OPENAI_COMPLETION, "{\"prompt\":[5,6,7]}");
    assert_int_equal(r.prompt_count, 1);
    assert_int_equal(r.prompt[0].id_count, 3);
    assert_int_equal(r.prompt[0].ids[2], 7);
    nj_openai_request_free(&r);
    r = parsed(NJ_OPENAI_COMPLETION, "{\"prompt\":[[5,6],[7]],\"max_tokens\":3}");
    assert_int_equal(r.prompt_count, 2);
    assert_int_equal(r.prompt[1].ids[0], 7);
    assert_int_equal(r.max_tokens, 3);
    nj_openai_request_free(&r);
}

/* The error must name the field (`param`), so that a client's author finds it. */
static void wrong_types_and_ranges_name_their_field(void **state)
{
    (void)state;
    static const struct {
        bool chat;
        const char *body, *param;
    } bad[] = {
        { true, "[]", "body" },
        { true, "{}", "messages" },
        { true, "{\"messages\":[]}", "messages" },
        { true, "{\"messages\":\"Hi\"}", "messages" },
        { true, "{\"messages\":[\"Hi\"]}", "messages[0]" },
        { true, "{\"messages\":[{\"content\":\"x\"}]}", "messages[0]" },
        { true, "{\"messages\":[{\"role\":\"user\"}]}", "messages[0]" },
        { true, "{\"messages\":[{\"role\":\"user\",\"content\":5}]}", "messages[0]" },
        { true, "{\"messages\":[{\"role\":\"user\",\"content\":[\"x\"]}]}", "messages[0].content[0]" },
        { true, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
          "messages[0].content[0]" },
        { true, "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":5}]}", "messages[0]" },
        { true, "{" USER ",\"model\":5}", "model" },
        { true, "{" USER ",\"temperature\":\"hot\"}", "temperature" },
        { true, "{" USER ",\"temperature\":true}", "temperature" },
        { true, "{" USER ",\"temperature\":2.01}", "temperature" },
        { true, "{" USER ",\"top_p\":-0.1}", "top_p" },
        { true, "{" USER ",\"top_k\":1.5}", "top_k" },
        { true, "{" USER ",\"top_k\":-2}", "top_k" },
        { true, "{" USER ",\"repeat_penalty\":0}", "repeat_penalty" },
        { true, "{" USER ",\"presence_penalty\":3}", "presence_penalty" },
        { true, "{" USER ",\"n\":0}", "n" },
        { true, "{" USER ",\"n\":129}", "n" },
        { true, "{" USER ",\"max_tokens\":0}", "max_tokens" },
        { true, "{" USER ",\"max_tokens\":1e300}", "max_tokens" },
        { true, "{" USER ",\"seed\":1.5}", "seed" },
        { true, "{" USER ",\"stop\":5}", "stop" },
        { true, "{" USER ",\"stop\":\"\"}", "stop" },
        { true, "{" USER ",\"stop\":[\"a\",1]}", "stop" },
        { true,
          "{" USER ",\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\",\"13\","
          "\"14\",\"15\",\"16\",\"17\"]}",
          "stop" },
        { true, "{" USER ",\"logit_bias\":[]}", "logit_bias" },
        { true, "{" USER ",\"logit_bias\":{\"x\":1}}", "logit_bias" },
        { true, "{" USER ",\"logit_bias\":{\"-1\":1}}", "logit_bias" },
        { true, "{" USER ",\"logit_bias\":{\"99999999999999999999\":1}}", "logit_bias" },
        { true, "{" USER ",\"logit_bias\":{\"1\":101}}", "logit_bias" },
        { true, "{" USER ",\"logit_bias\":{\"1\":\"x\"}}", "logit_bias" },
        { true, "{" USER ",\"logprobs\":3}", "logprobs" },
        { true, "{" USER ",\"top_logprobs\":3}", "top_logprobs" },
        { true, "{" USER ",\"logprobs\":true,\"top_logprobs\":21}", "top_logprobs" },
        { true, "{" USER ",\"ignore_eos\":1}", "ignore_eos" },
        { true, "{" USER ",\"chat_template_kwargs\":[]}", "chat_template_kwargs" },
        { true, "{" USER ",\"tools\":{}}", "tools" },
        { true, "{" USER ",\"tools\":[{\"type\":\"function\"}]}", "tools" },
        { true, "{" USER ",\"tools\":[{\"type\":\"custom\",\"function\":{\"name\":\"f\"}}]}", "tools" },
        { false, "{}", "prompt" },
        { false, "{\"prompt\":[]}", "prompt" },
        { false, "{\"prompt\":{}}", "prompt" },
        { false, "{\"prompt\":[1,\"x\"]}", "prompt" },
        { false, "{\"prompt\":[\"x\",1]}", "prompt" },
        { false, "{\"prompt\":[1,-1]}", "prompt" },
        { false, "{\"prompt\":[[]]}", "prompt" },
        { false, "{\"prompt\":[1,4294967296]}", "prompt" },
        { false, "{\"prompt\":\"x\",\"logprobs\":true}", "logprobs" },
        { false, "{\"prompt\":\"x\",\"echo\":\"yes\"}", "echo" },
    };
    for (size_t i = 0; i < NJ_COUNT(bad); i++) {
        nj_openai_request r;
        nj_openai_error e = { 0 };
        if (parse(&r, bad[i].chat ? NJ_OPENAI_CHAT : NJ_OPENAI_COMPLETION, bad[i].body, &e) != -EINVAL)
            fail_msg("taken: %s", bad[i].body);
        if (strcmp(e.param, bad[i].param)) fail_msg("%s: param is '%s': %s", bad[i].body, e.param, e.message);
        assert_int_equal(e.status, 400);
        assert_true(strlen(e.message) > 10);
    }
}

static void what_would_change_the_meaning_is_refused(void **state)
{
    (void)state;
    static const struct {
        bool chat;
        const char *body, *param;
    } bad[] = {
        { true, "{" USER ",\"response_format\":{\"type\":\"json_schema\"}}", "response_format" },
        { true, "{" USER ",\"response_format\":{\"type\":\"json_object\"}}", "response_format" },
        { true, "{" USER ",\"tool_choice\":\"required\"}", "tool_choice" },
        { true, "{" USER ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}}", "tool_choice" },
        { true, "{" USER ",\"functions\":[]}", "functions" },
        { true, "{" USER ",\"modalities\":[\"text\",\"audio\"]}", "modalities" },
        { true, "{" USER ",\"audio\":{}}", "audio" },
        { true, "{" USER ",\"web_search_options\":{}}", "web_search_options" },
        { false, "{\"prompt\":\"x\",\"suffix\":\"y\"}", "suffix" },
        { false, "{\"prompt\":\"x\",\"best_of\":2}", "best_of" },
        { false, "{\"prompt\":\"x\",\"echo\":true,\"logprobs\":1}", "echo" },
    };
    for (size_t i = 0; i < NJ_COUNT(bad); i++) {
        nj_openai_request r;
        nj_openai_error e = { 0 };
        if (parse(&r, bad[i].chat ? NJ_OPENAI_CHAT : NJ_OPENAI_COMPLETION, bad[i].body, &e) != -EINVAL)
            fail_msg("taken: %s", bad[i].body);
        assert_string_equal(e.param, bad[i].param);
        assert_string_equal(e.code, "unsupported_value");
    }
    nj_openai_request r = parsed(NJ_OPENAI_CHAT, "{" USER ",\"response_format\":{\"type\":\"text\"},\"modalities\":"
                                                 "[\"text\"],\"tool_choice\":\"auto\",\"functions\":null,\"new\":1}");
    nj_openai_request_free(&r);
}

static void error_body_is_the_api_s(void **state)
{
    (void)state;
    nj_openai_error e;
    assert_int_equal(nj_openai_fail(&e, "invalid_value", "n", "n is %d.", 0), -EINVAL);
    json_t *body = nj_openai_error_body(&e);
    char *text = json_dumps(body, JSON_COMPACT);
    assert_string_equal(text, "{\"error\":{\"message\":\"n is 0.\",\"type\":\"invalid_request_error\",\"param\":\"n\","
                              "\"code\":\"invalid_value\"}}");
    free(text);
    json_decref(body);
}

static void reply_of_chat(void **state)
{
    (void)state;
    nj_openai_request r = parsed(NJ_OPENAI_CHAT, "{" USER ",\"n\":2}");
    char text[] = "Hello \xF0\x9F\x8C\x99", broken[] = "half \xF0\x9F";
    nj_openai_choice c[2] = {
        { .text = text, .len = strlen(text), .finish = NJ_FINISH_STOP, .prompt_tokens = 5, .completion_tokens = 3 },
        { .text = broken, .len = strlen(broken), .finish = NJ_FINISH_LOOP, .prompt_tokens = 5, .completion_tokens = 4 },
    };
    json_t *body = nj_openai_reply_body(&r, &(nj_openai_reply){ "id", "m", "fp", 77 }, c, 2);
    char *got = json_dumps(body, JSON_COMPACT);
    assert_string_equal(
        got,
        "{\"id\":\"chatcmpl-id\",\"object\":\"chat.completion\",\"created\":77,\"model\":\"m\",\"choices\":["
        "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hello \xF0\x9F\x8C\x99\",\"refusal\":null},"
        "\"logprobs\":null,\"finish_reason\":\"stop\"},"
        "{\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"half \xEF\xBF\xBD\xEF\xBF\xBD\","
        "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"repetition\"}],"
        "\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":7,\"total_tokens\":12},\"system_fingerprint\":\"fp\"}");
    free(got);
    json_decref(body);
    nj_openai_request_free(&r);
}

static void reply_of_completion_counts_each_prompt_once(void **state)
{
    (void)state;
    nj_openai_request r = parsed(NJ_OPENAI_COMPLETION, "{\"prompt\":[\"a\",\"b\"],\"n\":2}");
    nj_openai_choice c[4] = { { .text = "x", .len = 1, .finish = NJ_FINISH_LENGTH, .prompt_tokens = 10 },
                              { .text = "x", .len = 1, .finish = NJ_FINISH_LENGTH, .prompt_tokens = 10 },
                              { .text = "y", .len = 1, .finish = NJ_FINISH_LENGTH, .prompt_tokens = 7 },
                              { .text = "y", .len = 1, .finish = NJ_FINISH_LENGTH, .prompt_tokens = 7 } };
    json_t *body = nj_openai_reply_body(&r, &(nj_openai_reply){ "id", "m", "fp", 77 }, c, 4);
    assert_string_equal(json_string_value(json_object_get(body, "object")), "text_completion");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(body, "usage"), "prompt_tokens")), 17);
    json_t *last = json_array_get(json_object_get(body, "choices"), 3);
    assert_string_equal(json_string_value(json_object_get(last, "text")), "y");
    assert_int_equal(json_integer_value(json_object_get(last, "index")), 3);
    json_decref(body);
    nj_openai_request_free(&r);
}

static void listing_shows_the_last_user_message(void **state)
{
    (void)state;
    static const struct {
        const char *body, *text;
    } c[] = {
        { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"},"
          "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"c\"}]},{\"role\":\"assistant\"}]}",
          "c" },
        { "{\"prompt\":[\"p\",\"q\"]}", "p" },
        { "{\"prompt\":[1,2]}", NULL },
        { "{\"messages\":5}", NULL },
        { "[]", NULL },
    };
    for (size_t i = 0; i < NJ_COUNT(c); i++) {
        json_t *body = json_of(c[i].body);
        const char *text = nj_openai_prompt_text(body);
        if (c[i].text)
            assert_string_equal(text, c[i].text);
        else
            assert_null(text);
        json_decref(body);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_and_null_fields_leave_the_defaults),
        cmocka_unit_test(every_setting_reaches_its_field),
        cmocka_unit_test(content_parts_become_text),
        cmocka_unit_test(developer_is_the_system_role),
        cmocka_unit_test(arguments_of_tool_calls_are_opened),
        cmocka_unit_test(tools_and_template_arguments_reach_the_template),
        cmocka_unit_test(prompts_come_in_four_forms),
        cmocka_unit_test(wrong_types_and_ranges_name_their_field),
        cmocka_unit_test(what_would_change_the_meaning_is_refused),
        cmocka_unit_test(error_body_is_the_api_s),
        cmocka_unit_test(reply_of_chat),
        cmocka_unit_test(reply_of_completion_counts_each_prompt_once),
        cmocka_unit_test(listing_shows_the_last_user_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
