"""tau2-bench's own environment and evaluators as a black box, to be run by a Python that has them.

Reads {"task": id, "calls": [[side, name, arguments], ...]} a line, and writes a line each: the
reward, what every call was answered, and the state of both sides.
"""

import json
import sys
from copy import deepcopy


def main(package: str) -> None:
    sys.path.insert(0, package)
    from loguru import logger  # type: ignore[import-not-found, unused-ignore]

    logger.remove()
    from tau2.data_model.message import (  # type: ignore[import-not-found, unused-ignore]
        AssistantMessage,
        ToolCall,
        UserMessage,
    )
    from tau2.domains.telecom import environment as telecom  # type: ignore[import-not-found, unused-ignore]
    from tau2.domains.telecom.data_model import TelecomDB  # type: ignore[import-not-found, unused-ignore]
    from tau2.domains.telecom.user_data_model import TelecomUserDB  # type: ignore[import-not-found, unused-ignore]
    from tau2.domains.telecom.user_tools import TelecomUserTools  # type: ignore[import-not-found, unused-ignore]
    from tau2.evaluator.evaluator_action import ActionEvaluator  # type: ignore[import-not-found, unused-ignore]
    from tau2.evaluator.evaluator_env import EnvironmentEvaluator  # type: ignore[import-not-found, unused-ignore]

    tables = TelecomDB.load(telecom.TELECOM_DB_PATH)
    phone = TelecomUserDB.load(telecom.TELECOM_USER_DB_PATH)
    tasks = {task.id: task for task in telecom.get_tasks(None)}
    vpn = deepcopy(TelecomUserTools.default_vpn_details)

    def environment(solo_mode: bool = False) -> object:
        return telecom.get_environment(
            db=deepcopy(tables), user_db=deepcopy(phone), solo_mode=solo_mode
        )

    for line in sys.stdin:
        asked = json.loads(line)
        task = tasks[asked["task"]]
        # a class holds it, so that it would pass from one episode to the next
        TelecomUserTools.default_vpn_details = deepcopy(vpn)
        env = environment()
        env.set_state(None, task.initial_state.initialization_actions, [])
        messages, answers = [], []
        for k, (side, name, arguments) in enumerate(asked["calls"]):
            call = ToolCall(id=str(k), name=name, arguments=arguments, requestor=side)
            kind = AssistantMessage if side == "assistant" else UserMessage
            messages.append(kind(role=side, tool_calls=[call]))
            messages.append(env.get_response(call))
            answers.append([messages[-1].error, messages[-1].content])
        TelecomUserTools.default_vpn_details = deepcopy(vpn)
        found = EnvironmentEvaluator.calculate_reward(environment, task, messages)
        reward = found.reward
        basis = {each.value for each in task.evaluation_criteria.reward_basis}
        if "ACTION" in basis:
            reward *= ActionEvaluator.calculate_reward(task, messages).reward
        state = {
            "device": env.user_tools.db.device.model_dump(mode="json"),
            "surroundings": env.user_tools.db.surroundings.model_dump(mode="json"),
            "tables": json.loads(json.dumps(env.tools.db.model_dump(), default=str)),
        }
        print(json.dumps({"reward": reward, "answers": answers, "state": state}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
